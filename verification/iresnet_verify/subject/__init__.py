"""What is audited: the subject, how it is loaded, called and read."""
