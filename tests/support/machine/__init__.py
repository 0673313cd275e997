"""What tests need from the machine: tools, loaders, browsers, and skips with a reason."""
