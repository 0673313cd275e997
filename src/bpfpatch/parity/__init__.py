"""What the kernel makes of a program, next to what our pipeline makes of it."""
