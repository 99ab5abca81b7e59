"""What is audited: the subject, how it is loaded and called, and its conventions."""
