"""Golden vectors: networks with the numbers of a right implementation, for ports in any language."""
