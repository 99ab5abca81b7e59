"""A Gaussian mixture as the base of a flow: one component for each class, so that one network is a density and a classifier.

    p(z | y) = N(z; μ_y, diag e^{2s}),   p(y) = π_y = softmax(`logits`)_y,   p(z) = Σ_y π_y p(z | y).

All classes share the scales s, and the posterior p(y | z) is the softmax of a linear function of z: a linear classifier on the
features F(x), as in Nalisnick et al., *Hybrid Models with Deep and Invertible Features*, ICML 2019, arXiv 1902.02767; a
mixture for few labels: Izmailov et al., *Semi-Supervised Learning with Normalizing Flows*, ICML 2020, arXiv 1912.13025.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from iresnet_ref.arrays import Array, from_host, namespace, public, whole_number
from iresnet_ref.arrays.validation import require_alike, require_parameters
from iresnet_ref.errors import ShapeError
from iresnet_ref.flows.base import DiagonalGaussian, StandardGaussian, require_events
from iresnet_ref.probes import Probes


@public
@dataclass(frozen=True)
class GaussianMixture:
    """p(z) = Σ_y π_y N(z; μ_y, diag e^{2s}): `means` μ (classes, *event), one `log_scale` s (*event), the `logits` (classes,) of π.

    Limits: sums of exponentials are taken relative to the largest: none overflows, whatever the logits.
    Raises: ShapeError, DTypeError. Reference: Nalisnick and others 2019, arXiv 1902.02767; Izmailov and others 2020, arXiv 1912.13025.

    >>> import numpy as np
    >>> base = GaussianMixture(np.asarray([[-3.0], [3.0]]), np.zeros(1), np.zeros(2))
    >>> np.round(base.posterior(np.asarray([[0.0], [3.0]])), 3).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """

    means: Array
    log_scale: Array
    logits: Array

    def __post_init__(self) -> None:
        event, classes = tuple(self.log_scale.shape), tuple(self.logits.shape)
        if len(classes) != 1 or not event or 0 in classes or tuple(self.means.shape) != (*classes, *event):
            raise ShapeError(
                "mixture: expected means (classes, *event), log_scale (*event) and logits (classes,), got "
                f"{tuple(self.means.shape)}, {event} and {classes}; try a row of means for each class"
            )
        for array in (self.log_scale, self.logits):
            require_alike(array, self.means, "mixture")

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of the scales."""
        return tuple(self.log_scale.shape)

    @property
    def like(self) -> Array:
        """The means."""
        return self.means

    @public
    def component(self, y: int) -> DiagonalGaussian:
        """Return p(z | y), itself a base: that of samples of one class."""
        whole_number("component: y", y, 0, self.logits.shape[0] - 1)
        return DiagonalGaussian(self.means[y, ...], self.log_scale)

    @property
    def _components(self) -> list[DiagonalGaussian]:
        return [self.component(y) for y in range(self.logits.shape[0])]

    def joint(self, z: Array) -> Array:
        """Return log p(z, y) for every class, (batch, classes)."""
        each = namespace(z).stack([component.log_prob(z) for component in self._components], axis=1)
        return each + log_softmax(self.logits[None, :])

    @public
    def log_prob(self, z: Array) -> Array:
        """Return log Σ_y p(z, y)."""
        require_events(z, self.event_shape, self.like)
        return log_sum(self.joint(z))[:, 0]

    @public
    def posterior(self, z: Array) -> Array:
        """Return p(y | z), (batch, classes)."""
        require_events(z, self.event_shape, self.like)
        return namespace(z).exp(log_softmax(self.joint(z)))

    @public
    def sample(self, n: int, *, seed: int = 0) -> Array:
        """Return n draws: a class by the Gumbel trick, then its Gaussian; row i depends on the seed and i alone."""
        whole_number("sample: n", n, 0)
        xp, classes = namespace(self.means), self.logits.shape[0]
        uniform = from_host(Probes(seed=seed, stream=1).uniforms(n, classes)[0], self.means)
        y = xp.argmax(self.logits[None, :] - xp.log(-xp.log(uniform)), axis=1)
        noise = StandardGaussian(self.event_shape, self.means).sample(n, seed=seed)
        return xp.take(self.means, y, axis=0) + noise * xp.exp(self.log_scale)

    def parameters(self) -> dict[str, Array]:
        """Return means, log-scales and logits."""
        return {"means": self.means, "log_scale": self.log_scale, "logits": self.logits}

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> GaussianMixture:
        """Return the density with these parameters."""
        require_parameters(parameters, self.parameters())
        return replace(self, **parameters)

    def pullback(self, z: Array, weights: Array) -> tuple[Array, dict[str, Array]]:
        """Return (z̄, gradients) of Σ_b w_b log p(z_b): those of the joint densities, weighted by the posterior."""
        return self.joint_pullback(z, weights[:, None] * self.posterior(z))

    def joint_pullback(self, z: Array, joint_bar: Array) -> tuple[Array, dict[str, Array]]:
        """Return (z̄, gradients) of Σ_{b,y} joint_bar_{by} log p(z_b, y); of the logits Σ_b (joint_bar − π Σ_y joint_bar)."""
        xp = namespace(z)
        z_bar, log_scale = xp.zeros_like(z), xp.zeros_like(self.log_scale)
        means: list[Array] = []
        for y, component in enumerate(self._components):
            mine, gradients = component.pullback(z, joint_bar[:, y])
            z_bar, log_scale = z_bar + mine, log_scale + gradients["log_scale"]
            means.append(gradients["mean"])
        per_class = xp.sum(joint_bar, axis=0)
        logits = per_class - xp.exp(log_softmax(self.logits[None, :]))[0, :] * xp.sum(per_class)
        return z_bar, {"means": xp.stack(means, axis=0), "log_scale": log_scale, "logits": logits}


def log_sum(a: Array) -> Array:
    """Return log Σ exp along the last axis, kept; the largest entry is taken out first: nothing overflows."""
    xp = namespace(a)
    largest = xp.max(a, axis=1, keepdims=True)
    return largest + xp.log(xp.sum(xp.exp(a - largest), axis=1, keepdims=True))


def log_softmax(a: Array) -> Array:
    """Return a − log Σ exp a along the last axis."""
    return a - log_sum(a)
