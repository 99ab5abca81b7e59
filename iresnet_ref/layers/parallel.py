"""Paths side by side whose values are added, y = f₁(x) + … + f_k(x): skip connections inside a branch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from iresnet_ref import rounding
from iresnet_ref.arrays import namespace, public, require_parameters, row_norm, size
from iresnet_ref.errors import ShapeError
from iresnet_ref.jacobian.shared_factors import Summed
from iresnet_ref.layers.layer import Layer, Pullback
from iresnet_ref.layers.tape import record
from iresnet_ref.rounding import up
from iresnet_ref.rounding.forward_error import ForwardError, no_error, one_rounding
from iresnet_ref.rounding.jacobian_error import JacobianError, telescoped

Path = tuple[Layer, ...]


@public
@dataclass(frozen=True)
class Parallel:
    """h ↦ Σ_k f_k(h), f_k a sequence of layers; an empty one is the identity. ‖Σ J_k‖ ≤ Σ_k Π Lip of the layers of f_k.

    Raises: ShapeError without a path, or where the paths end in different shapes.

    >>> import numpy as np
    >>> from iresnet_ref.layers.activations import get
    >>> from iresnet_ref.layers.pointwise import Pointwise
    >>> skip = Parallel(((), (Pointwise(get("relu")),)))
    >>> skip(np.asarray([[2.0, -1.0]])).tolist(), skip.norm_bound()
    ([[4.0, -1.0]], 2.0)
    """

    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(tuple(path) for path in self.paths))
        if not self.paths:
            raise ShapeError("parallel: expected at least one path, got none; try ((), (layer,)) for x + layer(x)")

    @property
    def name(self) -> str:
        """E.g. "sum of (identity) and (dense 3→3, elu)"."""
        return "sum of " + " and ".join(
            f"({', '.join(layer.name for layer in path) or 'identity'})" for path in self.paths
        )

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Those of the paths' layers, as "path.layer.weight" …"""
        return {
            f"{k}.{i}.{name}": p
            for k, path in enumerate(self.paths) for i, layer in enumerate(path) for name, p in layer.parameters.items()
        }  # fmt: skip

    @public
    def with_parameters(self, parameters: Mapping[str, Any]) -> Parallel:
        """Return the layer with these parameters."""
        require_parameters(parameters, self.parameters)
        return Parallel(
            tuple(
                tuple(
                    layer.with_parameters({n: parameters[f"{k}.{i}.{n}"] for n in layer.parameters})
                    for i, layer in enumerate(path)
                )
                for k, path in enumerate(self.paths)
            )
        )

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the sum."""
        ends = [reduce(lambda shape, layer: layer.out_shape(shape), path, event) for path in self.paths]
        if len(set(ends)) > 1:
            raise ShapeError(f"{self.name}: expected paths that end in one shape, got {ends}; nothing is broadcast")
        return ends[0]

    def __call__(self, x: Any) -> Any:
        """Return Σ f_k(x)."""
        return reduce(lambda a, b: a + b, (reduce(lambda h, layer: layer(h), path, x) for path in self.paths))

    def linearize(self, x: Any) -> tuple[Any, Summed]:
        """Return the value and Σ J_k."""
        tapes = [record(path, x) for path in self.paths]
        value = reduce(lambda a, b: a + b, (tape.value for tape in tapes))
        parts = tuple(() if tape.chain is None else tape.chain.factors for tape in tapes)
        return value, Summed(parts, tuple(x.shape[1:]), tuple(value.shape[1:]))

    def pullback(self, x: Any, v: Any, y_bar: Any, t_bar: Any) -> Pullback:
        """The sums of what the paths pull back."""
        xp = namespace(x)
        gradients: dict[str, Any] = {}
        x_bar = v_bar = None
        for k, path in enumerate(self.paths):
            if path:
                tape = record(path, x, linearize=v is not None)
                own, tangent, found = tape.pullback(y_bar, () if v is None else tape.push(v), t_bar)
                gradients |= {f"{k}.{name}": gradient for name, gradient in found.items()}
            else:
                own, tangent = y_bar, t_bar
                if tangent is not None and v is not None and tangent.shape != v.shape:  # v is one tangent for all rows
                    tangent = xp.sum(tangent, axis=v.ndim - x.ndim, keepdims=True)
            x_bar = own if x_bar is None else x_bar if own is None else x_bar + own
            v_bar = tangent if v_bar is None else v_bar if tangent is None else v_bar + tangent
        return x_bar, v_bar, gradients

    def norm_bound(self, p: float = 2.0) -> float:
        """Return Σ_k Π Lip, rounded up."""
        total = 0.0
        for path in self.paths:
            bounds = [layer.norm_bound(p) for layer in path]
            total += up(math.prod(bounds), len(bounds)) if any(bound != 1.0 for bound in bounds) else 1.0
        return up(total, len(self.paths)) if total != math.floor(total) else total

    def forward_error(self, h: Any, y: Any, before: ForwardError) -> ForwardError:
        """s′ = Σ s_k + γ_{k−1}Σ‖ŷ_k‖; the norms of the paths' values change by at most (Λ + a)‖x − x′‖ + 2s + b."""
        p, u, m = before.norm, rounding.unit_roundoff(h), size(tuple(y.shape[1:]))
        g, on_top = rounding.gamma(len(self.paths) - 1, u), 1.0 + (2 * m + 32) * u
        error = drift = 0.0
        growth = lipschitz = 0.0
        for path in self.paths:
            x, after = h, before
            for layer in path:
                value = layer(x)
                after, x = layer.forward_error(x, value, after), value
            error = error + after.error + g * row_norm(x, x.ndim - 1, p)
            growth += after.growth + g * (after.lipschitz + after.growth)
            drift = drift + after.drift + g * (2.0 * after.error + after.drift)
            lipschitz += after.lipschitz
        lipschitz = up(lipschitz, len(self.paths))
        return ForwardError(error * on_top, growth * on_top, drift * on_top, lipschitz, p, before.flushed)

    def jacobian_error(self, h: Any, error: Any) -> JacobianError:
        """‖F̂ − F‖_* ≤ Σ_k of the telescoped products; the norms add up."""
        nuclear: Any = 0.0 * error
        norm = absolute = 0.0
        terms = len(self.paths)
        for path in self.paths:
            x, before, found = h, no_error(h)._replace(error=error), []
            for layer in path:
                found.append(layer.jacobian_error(x, before.error))
                value = layer(x)
                before, x = layer.forward_error(x, value, before), value
            nuclear = nuclear + telescoped(found)
            norm += math.prod(factor.norm for factor in found)
            absolute += math.prod(factor.absolute for factor in found)
            terms += sum(factor.terms for factor in found)
        steps = terms + len(self.paths)
        return JacobianError(up(norm, steps), up(absolute, steps), terms, nuclear)

    def noise(self, h: Any, y: Any, variance: Any, unit: Any) -> Any:
        """The sum of the paths' variances, and one rounding."""
        total = None
        for path in self.paths:
            x, own = h, variance
            for layer in path:
                value = layer(x)
                own, x = layer.noise(x, value, own, unit), value
            total = own if total is None else total + own
        return total + one_rounding(y, unit)
