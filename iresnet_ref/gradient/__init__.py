"""Gradients without autodiff: of the log-determinant, through the inverse, through the spectral normalisation."""

from iresnet_ref.gradient.early import EarlyGradient, backward_in_forward
from iresnet_ref.gradient.inverse import inverse_gradient
from iresnet_ref.gradient.logdet import logdet_gradient
from iresnet_ref.gradient.normalised import Normalised
from iresnet_ref.gradient.result import InverseGradient, LogDetGradient, SequenceGradient
from iresnet_ref.gradient.sequence import sequence_gradient

__all__ = [
    "EarlyGradient",
    "InverseGradient",
    "LogDetGradient",
    "Normalised",
    "SequenceGradient",
    "backward_in_forward",
    "inverse_gradient",
    "logdet_gradient",
    "sequence_gradient",
]
