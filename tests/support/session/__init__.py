"""How a run of pytest is arranged: what shares the kernel, what goes side by side."""
