"""The log-determinant: its value, its bounds, that of the inverse."""
