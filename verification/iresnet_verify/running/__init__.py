"""What is run, in which modes, and one check from start to end in this process."""
