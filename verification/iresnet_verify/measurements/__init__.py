"""Self-contained measurements in NumPy: their source is copied into reproductions."""
