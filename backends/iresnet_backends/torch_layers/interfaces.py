"""The layers behind the interfaces of other packages. Their maps lead from data to the base, as in `ir.Flow`.

    nflows               the layer itself: Flow(CompositeTransform([block, …]), base)
    normflows            normflows.flows.Reverse(block): their forward leads from the base to data. It is our inverse: with
                         options=ir.Options(rtol=256u), u = 2⁻⁵³ in float64, a row is the same in every batch, to rounding
    zuko                 zuko.flows.Flow([AsTransform(block), …], base)
    torch.distributions  TransformedDistribution(base, AsTransform(block)().inv)
    FrEIA                SequenceINN(2).append(AsInvertibleModule, layer=block)

No package is imported here; what they ask for is a protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.distributions import constraints

from iresnet_backends.torch_layers.bijections import Layer

Tensor = Any


class AsTransform(torch.nn.Module):
    """A layer as a lazy transformation: called with a context, or none, it returns a `torch.distributions.Transform`.

    >>> from iresnet_backends import torch_layers
    >>> t = AsTransform(torch_layers.ResidualBlock((2, 8, 2)))
    >>> normal = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    >>> torch.distributions.TransformedDistribution(normal, t().inv).log_prob(torch.zeros(4, 2)).shape
    torch.Size([4])
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, c: Tensor | None = None) -> LayerTransform:
        """Return x ↦ y given the context c, of the weights as they will be when it is called."""
        return LayerTransform(self.layer, c)


class LayerTransform(torch.distributions.Transform):
    """x ↦ y of a layer on events of its shape, any number of batch axes in front; nothing is cached."""

    bijective = True

    @property
    def sign(self) -> int:
        """The sign of det dF/dx: a homotopy through invertible maps leads to the identity."""
        return 1

    def __init__(self, layer: Layer, context: Tensor | None = None) -> None:
        super().__init__(cache_size=0)
        self.layer, self.context = layer, context
        independent: Any = constraints.independent
        self.domain = self.codomain = independent(constraints.real, len(layer.event_shape))

    def _flat(self, method: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Call the layer on one batch axis, and give the values the axes that there were."""
        event = self.layer.event_shape
        batch = x.shape[: x.ndim - len(event)]
        context = self.context
        if context is not None:
            context = context.expand(*batch, context.shape[-1]).reshape(-1, context.shape[-1])
        y, log_det = method(x.reshape(-1, *event), context)
        return y.reshape(*batch, *y.shape[1:]), log_det.reshape(batch)

    def _call(self, x: Tensor) -> Tensor:
        return self._flat(self.layer, x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self._flat(self.layer.inverse, y)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log|det dy/dx| at x."""
        del y
        return self._flat(self.layer, x)[1]

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (y, log|det dy/dx|) from one pass."""
        return self._flat(self.layer, x)


class AsInvertibleModule(torch.nn.Module):
    """A layer as a module of FrEIA: ([x], c, rev, jac) ↦ ([y], log|det dy/dx|).
    Raises: ValueError for a node with another shape than the layer's events, or with several inputs.

    >>> from iresnet_backends import torch_layers
    >>> (y,), log_det = AsInvertibleModule([(2,)], layer=torch_layers.ResidualBlock((2, 8, 2)))([torch.zeros(3, 2)])
    >>> y.shape, log_det.shape
    (torch.Size([3, 2]), torch.Size([3]))
    """

    def __init__(self, dims_in: Sequence[tuple[int, ...]], dims_c: Sequence[tuple[int, ...]] | None = None, *, layer: Layer) -> None:
        super().__init__()
        self.dims_in, self.dims_c, self.layer = list(dims_in), list(dims_c or ()), layer
        if [tuple(d) for d in dims_in] != [layer.event_shape]:
            raise ValueError(f"AsInvertibleModule: expected one input of shape {layer.event_shape}, got {list(dims_in)}; try such a node")

    def forward(
        self, x_or_z: Sequence[Tensor], c: Sequence[Tensor] | None = None, rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor]:
        """Return the image, or with `rev` the preimage, and the log-determinant of that direction."""
        del jac
        context = c[0] if c else None
        y, log_det = (self.layer.inverse if rev else self.layer)(x_or_z[0], context)
        return (y,), log_det

    def output_dims(self, input_dims: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Return the shape of y."""
        del input_dims
        return [self.layer.event_shape]
