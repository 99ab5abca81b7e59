"""Norms of weights and convolutions: computed, iterated and bounded; weights divided by a proved bound."""

from iresnet_ref.normalisation.division import normalise
from iresnet_ref.normalisation.singular_values import (
    SingularTriple,
    gram_bound,
    power_iteration,
    singular_triple,
    spectral_norm,
)
from iresnet_ref.norms.all_grids import norm_on_every_image

__all__ = ["SingularTriple", "gram_bound", "norm_on_every_image", "normalise", "power_iteration", "singular_triple", "spectral_norm"]
