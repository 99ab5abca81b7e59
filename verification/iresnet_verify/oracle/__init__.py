"""Where the truth comes from: the Jacobian, its singular values and determinant."""
