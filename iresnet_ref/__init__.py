"""The mathematics of invertible residual networks, F(x) = x + g(x) with Lip(g) < 1, on any Array API backend.

[B19] Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen, *Invertible Residual Networks*, ICML 2019, arXiv 1811.00995.
[C19] Chen, Behrmann, Duvenaud, Jacobsen, *Residual Flows for Invertible Generative Modeling*, NeurIPS 2019, arXiv 1906.02735.
"""

from iresnet_ref.block import ResidualBlock, certify
from iresnet_ref.branches.branch import Branch
from iresnet_ref.branches.certificate import Certificate
from iresnet_ref.branches.convolutional import convnet
from iresnet_ref.branches.dense import mlp
from iresnet_ref.branches.densely_connected import densenet
from iresnet_ref.branches.normalised import NormalisedBranch
from iresnet_ref.errors import (
    ConvergenceError,
    DivergedError,
    DTypeError,
    InfiniteVarianceError,
    IResNetError,
    NonFiniteError,
    NotContractiveError,
    ShapeError,
)
from iresnet_ref.flows.base import BitsPerDimension, DiagonalGaussian, LogProb, StandardGaussian, bits_per_dimension
from iresnet_ref.flows.bijections.actnorm import ActNorm
from iresnet_ref.flows.bijections.composition import Composition, FactorOut
from iresnet_ref.flows.bijections.context import ContextShift
from iresnet_ref.flows.bijections.logit import Logit, dequantise
from iresnet_ref.flows.bijections.permutation import Permutation
from iresnet_ref.flows.bijections.plu_linear import PLULinear
from iresnet_ref.flows.bijections.protocol import Bijection, Options
from iresnet_ref.flows.bijections.squeeze import Squeeze
from iresnet_ref.flows.bijections.zero_padding import ZeroPad
from iresnet_ref.flows.flow import Flow
from iresnet_ref.flows.mixture import GaussianMixture
from iresnet_ref.gradient.backward_in_forward import StoredGradient, backward_in_forward
from iresnet_ref.gradient.inverse import inverse_gradient
from iresnet_ref.gradient.log_determinant import logdet_gradient
from iresnet_ref.gradient.result import InverseGradient, LogDetGradient, SequenceGradient
from iresnet_ref.gradient.sequence import sequence_gradient
from iresnet_ref.inversion.ball import Ball, inverse_ball
from iresnet_ref.inversion.composition import PathInverse, invert_composition
from iresnet_ref.inversion.result import Inverse
from iresnet_ref.inversion.solve import invert, rounding_floor
from iresnet_ref.layers.linear import Conv
from iresnet_ref.log_determinant.bounds import logdet_bounds, truncation_bound
from iresnet_ref.log_determinant.evaluate import logdet
from iresnet_ref.log_determinant.inverse import InverseLogDet, logdet_of_inverse
from iresnet_ref.log_determinant.length_distributions import LengthDistribution, geometric, near_optimal, poisson
from iresnet_ref.log_determinant.result import LogDet
from iresnet_ref.log_determinant.rounding_bound import logdet_error_bound
from iresnet_ref.log_determinant.variance import roulette_variance_bound
from iresnet_ref.normalisation.division import normalise
from iresnet_ref.normalisation.singular_values import (
    SingularTriple,
    gram_bound,
    power_iteration,
    singular_triple,
    spectral_norm,
)
from iresnet_ref.probes import Probes

__version__ = "0.1.0"

__all__ = [
    "ActNorm",
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
    "FactorOut",
    "Flow",
    "GaussianMixture",
    "IResNetError",
    "InfiniteVarianceError",
    "Inverse",
    "InverseGradient",
    "InverseLogDet",
    "LengthDistribution",
    "LogDet",
    "LogDetGradient",
    "LogProb",
    "Logit",
    "NonFiniteError",
    "NormalisedBranch",
    "NotContractiveError",
    "Options",
    "PLULinear",
    "PathInverse",
    "Permutation",
    "Probes",
    "ResidualBlock",
    "SequenceGradient",
    "ShapeError",
    "SingularTriple",
    "Squeeze",
    "StandardGaussian",
    "StoredGradient",
    "ZeroPad",
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
