"""What is proved beyond the results' own fields: the ball around an inverse, rounding floors, bounds on log-determinants."""

from iresnet_ref.block import two_sided
from iresnet_ref.branches.certificates.box import BoxCertificate
from iresnet_ref.branches.certificates.two_sided import TwoSided
from iresnet_ref.inversion.ball import Ball, inverse_ball
from iresnet_ref.inversion.solve import rounding_floor
from iresnet_ref.log_determinant.bounds import logdet_bounds, truncation_bound
from iresnet_ref.log_determinant.rounding_bound import logdet_error_bound

__all__ = [
    "Ball", "BoxCertificate", "TwoSided", "inverse_ball", "logdet_bounds", "logdet_error_bound", "rounding_floor",
    "truncation_bound", "two_sided",
]
