"""What works on this machine: backends, devices, parity between them; and what counted work will take on it."""
