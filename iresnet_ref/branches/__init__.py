"""Residual branches g: layers in sequence, their certificates, and the constructors of dense and convolutional ones."""
