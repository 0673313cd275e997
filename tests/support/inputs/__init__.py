"""What programs are tried on: objects, packets, contexts, conformance vectors."""
