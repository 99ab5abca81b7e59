"""log|det dF/dx| of a residual block and of its inverse: exact, truncated series, Russian roulette, Arnoldi quadrature."""

from iresnet_ref.logdet import laws
from iresnet_ref.logdet.bounds import logdet_bounds, truncation_bound
from iresnet_ref.logdet.evaluate import EXACT_UP_TO, Method, logdet
from iresnet_ref.logdet.inverse import InverseLogDet, logdet_of_inverse
from iresnet_ref.logdet.laws import Law
from iresnet_ref.logdet.result import LogDet
from iresnet_ref.logdet.variance import roulette_variance_bound

__all__ = [
    "EXACT_UP_TO",
    "InverseLogDet",
    "Law",
    "LogDet",
    "Method",
    "laws",
    "logdet",
    "logdet_bounds",
    "logdet_of_inverse",
    "roulette_variance_bound",
    "truncation_bound",
]
