"""What stands between the residual blocks of a flow: closed-form inverses and exact log-determinants."""

from iresnet_ref.flows.bijections.actnorm import ActNorm
from iresnet_ref.flows.bijections.composition import Composition, FactorOut
from iresnet_ref.flows.bijections.context import ContextShift
from iresnet_ref.flows.bijections.logit import Logit, dequantise
from iresnet_ref.flows.bijections.permutation import Permutation
from iresnet_ref.flows.bijections.plu_linear import PLULinear
from iresnet_ref.flows.bijections.protocol import Bijection, ClosedForm
from iresnet_ref.flows.bijections.residual import Residual
from iresnet_ref.flows.bijections.squeeze import Squeeze
from iresnet_ref.flows.bijections.zero_padding import ZeroPad

__all__ = [
    "ActNorm", "Bijection", "ClosedForm", "Composition", "ContextShift", "FactorOut", "Logit", "PLULinear",
    "Permutation", "Residual", "Squeeze", "ZeroPad", "dequantise",
]
