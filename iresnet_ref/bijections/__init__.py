"""The bijections that stand between residual blocks: closed-form inverses and exact log-determinants."""

from iresnet_ref.bijections.actnorm import ActNorm
from iresnet_ref.bijections.composition import Composition, FactorOut
from iresnet_ref.bijections.context import ContextShift
from iresnet_ref.bijections.logit import Logit, dequantise
from iresnet_ref.bijections.mixing import Mixing
from iresnet_ref.bijections.padding import Pad
from iresnet_ref.bijections.permutation import Permutation
from iresnet_ref.bijections.protocol import Bijection, Options
from iresnet_ref.bijections.residual import Residual
from iresnet_ref.bijections.squeeze import Squeeze

__all__ = [
    "ActNorm", "Bijection", "Composition", "ContextShift", "FactorOut", "Logit", "Mixing", "Options", "Pad", "Permutation", "Residual",
    "Squeeze", "dequantise",
]
