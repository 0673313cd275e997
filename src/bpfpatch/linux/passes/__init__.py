"""The rewriting that the kernel does between BPF_PROG_LOAD and its JIT, as passes.

`bpfpatch.passes.builtin` names them, so that a pipeline finds them by text.
"""
