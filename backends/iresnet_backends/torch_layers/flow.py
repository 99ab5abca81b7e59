"""A flow as a module: log p(x), samples, and the map to its base."""

from __future__ import annotations

from typing import Any

import torch

import iresnet_ref as ir
from iresnet_backends.torch_layers.bijections import Composition, Layer, layer
from iresnet_backends.torch_layers.state import Parameters, require_structure, structure
from iresnet_ref import densities

Tensor = Any


class Flow(Composition):
    """z = F(x), z ~ base, of an `ir.Flow`: `log_prob(x)` to train, `sample(n)` to draw, `forward` and `inverse` for (value, log_det).

    Blocks get Lip(g) ≤ `lipschitz`, by certificate after every step of an optimiser (`certificates()`); `options` default to the
    flow's own. With `rebuild` the backward pass rebuilds activations by inversion instead of keeping them. ActNorm is
    initialised by `initialise(batch)`, before anything else. `reference()` is the certified `ir.Flow` of the weights as they are now.

    >>> flow = Flow(ir.Flow([ir.ResidualBlock(ir.mlp((2, 16, 2)))]))
    >>> loss = -flow.log_prob(torch.zeros(8, 2, dtype=torch.float64)).mean()
    >>> loss.backward()
    >>> flow.sample(5).shape
    torch.Size([5, 2])
    """

    _like: Tensor

    def __init__(
        self, flow: ir.Flow, *, lipschitz: float | None = 0.9, options: ir.Options | None = None, rebuild: bool = False
    ) -> None:
        own = flow.options if options is None and flow.options != ir.Options() else options
        steps: list[Layer] = [layer(step, lipschitz=lipschitz) for step in flow.steps.steps]
        super().__init__(steps, options=own, rebuild=rebuild)
        self.base = Parameters(flow.base.parameters())
        self._base = flow.base
        anchor = next(iter(self.parameters()), torch.zeros(0))
        self.register_buffer("_like", anchor.detach().new_zeros(0), persistent=False)

    def _density(self, parameters: dict[str, Tensor]) -> Any:
        """Return the base with these parameters; one without any takes the dtype and device of the flow."""
        if isinstance(self._base, densities.StandardGaussian):
            return densities.StandardGaussian(self._base.event_shape, self._like)
        return self._base.with_parameters(parameters)

    def log_prob(self, x: Tensor, context: Tensor | None = None, *, options: ir.Options | None = None) -> Tensor:
        """Return log p(x) per row, in nats; given a context, log p(x | context)."""
        z, log_det = self(x, context, options=options)
        return self.base_log_prob(z) + log_det

    def base_log_prob(self, z: Tensor) -> Tensor:
        """Return log p_Z(z) per row, in nats."""
        return self._density(self.base.tensors()).log_prob(z)

    def sample(self, n: int, context: Tensor | None = None, *, seed: int | None = None, options: ir.Options | None = None) -> Tensor:
        """Return n draws x = F⁻¹(z), with gradients; row i depends on the seed (default: from torch's generator) and i alone.

        Raises: ConvergenceError.
        """
        seed = int(torch.randint(2**63 - 1, (), device="cpu")) if seed is None else seed
        z = self._density(self.base.tensors()).sample(n, seed=seed)
        return self.inverse(z, context, options=options)[0]

    def reference(self) -> Any:
        """Return the certified `ir.Flow` of the weights as they are now."""
        steps = [step.reference() for step in self.steps]
        base = self._density({name: p.detach().clone() for name, p in self.base.tensors().items()})
        return ir.Flow(steps, base) if self.options is None else ir.Flow(steps, base, self.options)

    def get_extra_state(self) -> Tensor:
        """Return the structure of the base."""
        return structure(self._base)

    def set_extra_state(self, state: Tensor) -> None:
        """Refuse the state of another base. Raises FormatError."""
        require_structure(self._base, state, "base density")
