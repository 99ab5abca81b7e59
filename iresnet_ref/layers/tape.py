"""The record of one forward pass, and the reverse pass over (primal, tangent) pairs that reads it.

A tangent may travel around the loop of the layers from any of them: with M the product of the factors in the order
k+1, …, L, 1, …, k, det(I + M) = det(I + J), so the gradient of the log-determinant needs Σ t̄ᵀ(∇M)v only, at the
narrowest place. The primal value still flows from the first layer to the last, and its cotangent back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from iresnet_ref.arrays import Array, namespace
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.jacobian.factors import Factor
from iresnet_ref.layers.layer import Layer, over_rows

Pulled = tuple[Array, Array | None, dict[str, Array]]
"""(x̄, v̄, gradients): v̄ is None where no tangent was given."""


@dataclass(frozen=True, eq=False)
class Tape:
    """`inputs` of every layer at x, the `value` g(x), and the `chain` of J_g(x) (None where it was not asked for).

    `onto` takes the gradients to other parameters than the layers' own.
    """

    layers: tuple[Layer, ...]
    inputs: tuple[Array, ...]
    value: Array
    chain: Chain | None
    onto: Callable[[Mapping[str, Array]], dict[str, Array]] | None = None

    @property
    def jacobian(self) -> Chain:
        """The chain of J_g(x). Raises ValueError where it was not asked for."""
        if self.chain is None:
            raise ValueError("tape: expected a record with the Jacobian's chain, got one without; try record(linearize=True)")
        return self.chain

    def take(self, rows: slice) -> Tape:
        """Return the record of these rows of the batch."""
        chain = None if self.chain is None else self.chain.take(rows)
        return replace(self, inputs=tuple(x[rows, ...] for x in self.inputs), value=self.value[rows, ...], chain=chain)

    def push(self, v: Array, start: int = 0) -> tuple[Array, ...]:
        """Return the tangent in front of each layer, from layer `start` once around, and the last behind all of them."""
        return _pushed(self.jacobian.rotated(start).factors, v)

    def push_in_front(self, v: Array) -> tuple[Array, ...]:
        """Return the tangent in front of each layer, which is what `pullback` reads: one product less."""
        return _pushed(self.jacobian.factors[:-1], v)

    def pullback(
        self,
        y_bar: Array | None = None,
        tangents: Sequence[Array] = (),
        t_bar: Array | None = None,
        start: int = 0,
        *,
        wants_v_bar: bool = True,
    ) -> Pulled:
        """Return (x̄, v̄, gradients) of Σ ȳᵀg(x) + Σ t̄ᵀMv, `tangents` = push(v, start); v̄ is None where it is not wanted.

        x̄ is zero, not None. Without tangents and t̄ this is ordinary backpropagation. Behind `start` one sweep serves
        primal and tangent; in front of it the tangent's cotangents come first, since the loop ends there.
        """
        n = len(self.layers)
        bent: list[Array | None] = [None] * n
        gradients: dict[str, Array] = {}

        def back(i: int, y_bar: Array | None, t_bar: Array | None) -> tuple[Array | None, Array | None]:
            x = self.inputs[i]
            v = tangents[(i - start) % n] if t_bar is not None else None
            if self.chain is None:
                x_bar, v_bar, own = self.layers[i].pullback(x, v, y_bar, t_bar)
            elif i == start and v is not None and not wants_v_bar:
                v_bar = None
                x_bar, own = self.layers[i].pullback_first(self.chain.factors[i], x, v, y_bar, t_bar)
            else:
                x_bar, v_bar, own = self.layers[i].pullback_at(self.chain.factors[i], x, v, y_bar, t_bar)
            for name, gradient in own.items():
                key = f"{i}.{name}"
                gradients[key] = gradients[key] + gradient if key in gradients else gradient
            return x_bar, None if v is None or v_bar is None else over_rows(v_bar, v, x.ndim)

        for i in reversed(range(start)):
            bent[i], t_bar = back(i, None, t_bar)
        for i in reversed(range(start, n)):
            y_bar, t_bar = back(i, y_bar, t_bar)
        for i in reversed(range(start)):
            y_bar = added(back(i, y_bar, None)[0], bent[i])
        x = self.inputs[0]
        ordered = {f"{i}.{name}": gradients[f"{i}.{name}"] for i, layer in enumerate(self.layers) for name in layer.parameters}
        ordered = ordered if self.onto is None else self.onto(ordered)
        return (namespace(x).zeros_like(x) if y_bar is None else y_bar), t_bar, ordered


def _pushed(factors: Sequence[Factor], v: Array) -> tuple[Array, ...]:
    tangents = [v]
    for factor in factors:
        tangents.append(factor.apply(tangents[-1]))
    return tuple(tangents)


def added(a: Array | None, b: Array | None) -> Array | None:
    """Return a + b, where None is zero."""
    return b if a is None else a if b is None else a + b


def record(layers: tuple[Layer, ...], x: Array, *, linearize: bool = True) -> Tape:
    """Return the tape of g at x; without `linearize` it serves ordinary backpropagation only."""
    batch = x.shape[0]
    inputs: list[Array] = []
    factors: list[Factor] = []
    for layer in layers:
        inputs.append(x)
        if linearize:
            x, factor = layer.record(x)
            factors.append(factor)
        else:
            x = layer(x)
    return Tape(layers, tuple(inputs), x, Chain(tuple(factors), batch, x) if linearize else None)
