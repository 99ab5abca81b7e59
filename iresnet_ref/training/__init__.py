"""Training without autodiff, on any backend: losses with their gradients, AdamW as pure functions, one loop.

A run is a value: `start` makes the first state, `fit` returns later ones, and a state determines everything that follows.
"""

from iresnet_ref.errors import DivergedError
from iresnet_ref.training.batches import minibatch
from iresnet_ref.training.classifier import Classifier
from iresnet_ref.training.loop import Settings, State, fit, start
from iresnet_ref.training.losses import Loss, classification, cross_entropy, hybrid, maximum_likelihood
from iresnet_ref.training.normalised_model import NormalisedModel
from iresnet_ref.training.optimiser import Moments, adamw, averaged, clip, global_norm, warm_up

__all__ = [
    "Classifier", "DivergedError", "Loss", "Moments", "NormalisedModel", "Settings", "State", "adamw", "averaged",
    "classification", "clip", "cross_entropy", "fit", "global_norm", "hybrid", "maximum_likelihood", "minibatch",
    "start", "warm_up",
]
