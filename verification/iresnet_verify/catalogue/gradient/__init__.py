"""Derivatives with respect to parameters and inputs."""
