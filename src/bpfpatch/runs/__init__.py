"""One way to run a program in any mode: interpreter, JIT, JIT with blinding."""
