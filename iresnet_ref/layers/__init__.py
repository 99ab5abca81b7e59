"""The layers of a residual branch: linear maps, activations, sorting and concatenation."""
