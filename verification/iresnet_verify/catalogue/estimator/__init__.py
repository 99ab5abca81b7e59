"""Random estimates of the log-determinant: bias, variance, coefficients of the series."""
