"""bpf(2): commands, descriptors, maps, programs, test runs, ring buffers."""
