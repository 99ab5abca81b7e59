"""The mathematics of invertible residual networks, F(x) = x + g(x) with Lip(g) < 1, on any Array API backend.

[B19] Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen, *Invertible Residual Networks*, ICML 2019, arXiv 1811.00995.
[C19] Chen, Behrmann, Duvenaud, Jacobsen, *Residual Flows for Invertible Generative Modeling*, NeurIPS 2019, arXiv 1906.02735.
"""

from iresnet_ref.ball import Ball, inverse_ball
from iresnet_ref.bijections import (
    ActNorm,
    Bijection,
    Composition,
    ContextShift,
    FactorOut,
    Logit,
    Mixing,
    Options,
    Pad,
    Permutation,
    Squeeze,
    dequantise,
)
from iresnet_ref.block import ResidualBlock
from iresnet_ref.branch import Branch, mlp
from iresnet_ref.certify import Certificate, certify
from iresnet_ref.concatenation import densenet
from iresnet_ref.conv import Conv, convnet
from iresnet_ref.density import BitsPerDimension, DiagonalGaussian, LogProb, StandardGaussian, bits_per_dimension
from iresnet_ref.errors import (
    BackendUnavailableError,
    ConvergenceError,
    DivergedError,
    DTypeError,
    FormatError,
    InfiniteVarianceError,
    IResNetError,
    NonFiniteError,
    NotContractiveError,
    ShapeError,
    SubjectError,
)
from iresnet_ref.flow import Flow
from iresnet_ref.gradient import (
    EarlyGradient,
    InverseGradient,
    LogDetGradient,
    Normalised,
    SequenceGradient,
    backward_in_forward,
    inverse_gradient,
    logdet_gradient,
    sequence_gradient,
)
from iresnet_ref.inverse import Inverse, invert, rounding_floor
from iresnet_ref.inverse.composition import PathInverse, invert_composition
from iresnet_ref.logdet import (
    InverseLogDet,
    Law,
    LogDet,
    logdet,
    logdet_bounds,
    logdet_of_inverse,
    roulette_variance_bound,
    truncation_bound,
)
from iresnet_ref.logdet.error import logdet_error_bound
from iresnet_ref.logdet.laws import geometric, near_optimal, poisson
from iresnet_ref.mixture import GaussianMixture
from iresnet_ref.probes import Probes
from iresnet_ref.spectral import (
    SingularTriple,
    gram_bound,
    normalise,
    power_iteration,
    singular_triple,
    spectral_norm,
)

__version__ = "0.1.0"

__all__ = [
    "ActNorm",
    "BackendUnavailableError",
    "Ball",
    "Bijection",
    "BitsPerDimension",
    "Branch",
    "Certificate",
    "Composition",
    "ContextShift",
    "Conv",
    "ConvergenceError",
    "DTypeError",
    "DiagonalGaussian",
    "DivergedError",
    "EarlyGradient",
    "FactorOut",
    "Flow",
    "FormatError",
    "GaussianMixture",
    "IResNetError",
    "InfiniteVarianceError",
    "Inverse",
    "InverseGradient",
    "InverseLogDet",
    "Law",
    "LogDet",
    "LogDetGradient",
    "LogProb",
    "Logit",
    "Mixing",
    "NonFiniteError",
    "Normalised",
    "NotContractiveError",
    "Options",
    "Pad",
    "PathInverse",
    "Permutation",
    "Probes",
    "ResidualBlock",
    "SequenceGradient",
    "ShapeError",
    "SingularTriple",
    "Squeeze",
    "StandardGaussian",
    "SubjectError",
    "backward_in_forward",
    "bits_per_dimension",
    "certify",
    "convnet",
    "densenet",
    "dequantise",
    "geometric",
    "gram_bound",
    "inverse_ball",
    "inverse_gradient",
    "invert",
    "invert_composition",
    "logdet",
    "logdet_bounds",
    "logdet_error_bound",
    "logdet_gradient",
    "logdet_of_inverse",
    "mlp",
    "near_optimal",
    "normalise",
    "poisson",
    "power_iteration",
    "roulette_variance_bound",
    "rounding_floor",
    "sequence_gradient",
    "singular_triple",
    "spectral_norm",
    "truncation_bound",
]
