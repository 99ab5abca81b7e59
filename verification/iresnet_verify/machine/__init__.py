"""What works on this machine: backends, devices, parity between them."""
