"""What libbpf does before a load: CO-RE, maps, kconfig, externs, BTF made fit."""
