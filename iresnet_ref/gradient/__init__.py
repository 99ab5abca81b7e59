"""Gradients without autodiff: of the log-determinant, through the inverse, through the spectral normalisation."""

from iresnet_ref.gradient.inverse import inverse_gradient
from iresnet_ref.gradient.logdet import logdet_gradient
from iresnet_ref.gradient.normalised import Normalised
from iresnet_ref.gradient.result import InverseGradient, LogDetGradient

__all__ = ["InverseGradient", "LogDetGradient", "Normalised", "inverse_gradient", "logdet_gradient"]
