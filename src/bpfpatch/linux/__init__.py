"""What Linux makes of a program: its verifier, its rewriting, its log, and how to compare."""
