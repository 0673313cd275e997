"""Read the verifier's log, and load a program to get one."""
