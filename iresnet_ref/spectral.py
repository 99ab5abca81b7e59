"""Norms of weights and convolutions: computed, iterated and bounded; weights divided by a proved bound."""

from iresnet_ref.normalisation.division import normalise
from iresnet_ref.normalisation.singular_values import (
    SingularTriple,
    gram_bound,
    power_iteration,
    singular_triple,
    spectral_norm,
)

__all__ = ["SingularTriple", "gram_bound", "normalise", "power_iteration", "singular_triple", "spectral_norm"]
