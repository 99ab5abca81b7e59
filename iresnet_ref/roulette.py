"""Distributions of the series length N of Russian roulette, and the variance that they give the estimate."""

from iresnet_ref.log_determinant.length_distributions import LengthDistribution, geometric, near_optimal, poisson
from iresnet_ref.log_determinant.variance import roulette_variance_bound

__all__ = ["LengthDistribution", "geometric", "near_optimal", "poisson", "roulette_variance_bound"]
