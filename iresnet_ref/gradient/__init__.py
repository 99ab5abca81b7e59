"""Gradients without autodiff: of the log-determinant, and through the inverse."""
