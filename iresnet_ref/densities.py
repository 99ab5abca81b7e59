"""The densities at the end of a flow, and log p in bits per dimension."""

from iresnet_ref.flows.base import BitsPerDimension, DiagonalGaussian, StandardGaussian, bits_per_dimension
from iresnet_ref.flows.mixture import GaussianMixture

__all__ = ["BitsPerDimension", "DiagonalGaussian", "GaussianMixture", "StandardGaussian", "bits_per_dimension"]
