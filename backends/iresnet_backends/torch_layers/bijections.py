"""Bijections of the reference as modules: forward(x) → (y, log_det), inverse(y) → (x, log_det)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

import iresnet_ref as ir
from iresnet_backends.torch_layers.certified import Certified
from iresnet_backends.torch_layers.functions import Forward, Inverse, applied, outside_autocast
from iresnet_backends.torch_layers.options import auto_is_exact, default_options, drawn, is_random, settled
from iresnet_backends.torch_layers.state import Parameters, require_structure, structure
from iresnet_ref import bijections

Tensor = Any
Pair = tuple[Tensor, Tensor]


class Layer(torch.nn.Module):
    """What all modules here share: x ↦ (y, log|det dy/dx|) row by row, and its inverse with the log-determinant of the inverse.

    `options` of a call are taken as they are, draws included: the same `ir.Probes` give the same numbers on every device. Without
    them the layer's own are used, and every call draws a new seed from torch's generator of the CPU.
    """

    streams = 0
    """How many random streams it may use."""

    def __init__(self, options: ir.Options | None) -> None:
        super().__init__()
        self.options = options

    @property
    @abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one x."""

    @abstractmethod
    def _forward(self, x: Tensor, context: Tensor | None, options: ir.Options) -> Pair:
        """Return (y, log_det)."""

    @abstractmethod
    def _inverse(self, y: Tensor, context: Tensor | None, options: ir.Options) -> Pair:
        """Return (x, log_det of the inverse)."""

    @abstractmethod
    def reference(self) -> Any:
        """Return the same as a value of the reference, with the weights as they are now."""

    @abstractmethod
    def draws(self, options: ir.Options) -> bool:
        """Return whether its log-determinant is random with these options."""

    def forward(self, x: Tensor, context: Tensor | None = None, *, options: ir.Options | None = None) -> Pair:
        """Return (y, log_det) for x of shape (batch, *event); `context` (batch, k) where a step takes one.

        Raises: as the reference, ShapeError, DTypeError, NonFiniteError, NotContractiveError.
        """
        return self._uncompiled(self._forward, x, context, options)

    def inverse(self, y: Tensor, context: Tensor | None = None, *, options: ir.Options | None = None) -> Pair:
        """Return (x, log_det) of the inverse map, to the options' `rtol` (default: three quarters of the dtype's digits).

        Raises: ConvergenceError with `.result` where rounding keeps a row above it, and as `forward`.
        """
        return self._uncompiled(self._inverse, y, context, options)

    def _uncompiled(self, method: Any, x: Tensor, context: Tensor | None, options: ir.Options | None) -> Pair:
        """Call the method, which a compiler neither can nor need look into: proofs, lengths of series and stops are decided on values."""
        if torch.compiler.is_compiling():
            return torch.compiler.disable(self._called)(method, x, context, options)  # type: ignore[no-untyped-call]  # torch does not annotate it
        return self._called(method, x, context, options)

    def _called(self, method: Any, x: Tensor, context: Tensor | None, options: ir.Options | None) -> Pair:
        x = self._in_own_dtype(x)
        with outside_autocast(x):
            found: Pair = method(x, context, self._options(x, options))
        return found

    def _options(self, x: Tensor, given: ir.Options | None) -> ir.Options:
        if given is not None:
            return given
        own = default_options(x) if self.options is None else self.options
        return drawn(own) if self.draws(own) else own

    def _in_own_dtype(self, x: Tensor) -> Tensor:
        """Under autocast, x in the dtype of the weights; elsewhere x as it is, which the reference refuses if it does not fit."""
        if isinstance(x, torch.Tensor) and torch.is_autocast_enabled(x.device.type) and x.is_floating_point():
            own = next((p.dtype for p in self.parameters()), x.dtype)
            return x.to(own)
        return x

    def initialise(self, x: Tensor) -> None:
        """Set what waits for a first batch (ActNorm) from x, once; under DistributedDataParallel before the module is wrapped."""
        del x

    def certificates(self) -> dict[str, ir.Certificate]:
        """Return what is proved of Lip(g) of each residual block, by its name."""
        return {name: part.certificate() for name, part in self.named_modules() if isinstance(part, ResidualBlock)}


class ResidualBlock(Layer):
    """F(x) = x + g(x) with proved Lip(g) ≤ `lipschitz` < 1, as a module that trains, saves and moves like any other.

    `branch` is g (`ir.mlp`, `ir.convnet`, `ir.densenet`, `from_torch` of a module), a block, or the sizes of an MLP, whose weights torch's
    generator then seeds. The parameters are raw weights: what is evaluated is divided by their norms, with the gradient through
    that division, so that after every step of an optimiser the next call projects, and proves, by itself. `certificate()` returns the
    proof, `project_()` writes the divided weights into the parameters. With `lipschitz` None weights are used as they are.

    The log-determinant is computed by `options` (`ir.Options(logdet=ir.Roulette())`, `ir.Exact()`, `ir.Series(10)`, …) and is that value,
    not a surrogate; the gradient is the reference's: exact, or unbiased, for any weights of the rows. x and the weights are all that
    is kept for it, however many terms are drawn. Second derivatives are offered but for those of the norms (NotImplementedError; not after
    `project_`); of the inverse first ones.

    Errors: NotContractiveError where no bound is proved. Under `torch.compile` the block is called as it is, between two graphs; under
    autocast it computes in the dtype of its weights; under vmap a random log-determinant needs `randomness="same"`.
    Reference: [B19] Thm 1, §2.1; [C19] eq. 6, 8.

    >>> block = ResidualBlock(ir.mlp((2, 16, 2), lipschitz=0.5), lipschitz=0.5)
    >>> x = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    >>> y, log_det = block(x)
    >>> (y.square().sum() - log_det.sum()).backward()
    >>> torch.optim.Adam(block.parameters()).step()
    >>> block.certificate().bound <= 0.5
    True
    """

    streams = 1

    def __init__(
        self,
        branch: ir.Branch | ir.ResidualBlock | Sequence[int],
        *,
        lipschitz: float | None = 0.9,
        activation: str = "lipswish",
        options: ir.Options | None = None,
    ) -> None:
        super().__init__(options)
        if isinstance(branch, Sequence):
            seed, bound = int(torch.randint(2**63 - 1, (), device="cpu")), 0.9 if lipschitz is None else lipschitz
            branch = ir.mlp(branch, activation=activation, lipschitz=bound, seed=seed, like=torch.zeros(1))
        block = branch if isinstance(branch, ir.ResidualBlock) else ir.ResidualBlock(branch)
        self.branch = Parameters(block.branch.parameters())
        self._certified = Certified(block, lipschitz, self.branch.tensors())
        self._auto_is_exact = auto_is_exact(self.reference())

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one x."""
        return self._certified.template.event_shape

    @property
    def lipschitz(self) -> float | None:
        """The bound asked for."""
        return self._certified.lipschitz

    def _raw(self) -> list[Tensor]:
        return list(self.branch.tensors().values())

    def draws(self, options: ir.Options) -> bool:
        """Return whether its log-determinant is random with these options."""
        return is_random(settled(options, self._auto_is_exact))

    def _forward(self, x: Tensor, context: Tensor | None, options: ir.Options) -> Pair:
        del context
        y, log_det = applied(Forward, self._certified, settled(options, self._auto_is_exact), x, *self._raw())
        return y, log_det

    def _inverse(self, y: Tensor, context: Tensor | None, options: ir.Options) -> Pair:
        del context
        x, log_det = applied(Inverse, self._certified, settled(options, self._auto_is_exact), y, *self._raw())
        return x, log_det

    def residual(self, x: Tensor) -> Tensor:
        """Return g(x), outside the graph."""
        return self.reference().branch(x.detach())

    def _made(self) -> ir.ResidualBlock:
        return self._certified.at([p.detach() for p in self._raw()]).block

    def reference(self) -> ir.ResidualBlock:
        """Return the certified block of the weights as they are now; what `ir.certify` finds of it stays with it."""
        return self._certified.at([p.detach() for p in self._raw()]).reference()

    def certificate(self) -> ir.Certificate:
        """Return the proof that the division gives, Lip(g) ≤ `bound`, of the weights as they are now.

        `ir.certify(block.reference())` looks for a smaller bound.
        """
        return self._made().certificate

    def project_(self) -> None:
        """Write the divided weights into the parameters: the same block, from weights that keep their share by themselves.

        Of a sandwich branch nothing is written: its parameters are free.
        """
        if isinstance(self._certified.template, ir.SandwichBranch):
            return
        divided = self._made().branch.parameters()
        with torch.no_grad():
            for name, p in self.branch.tensors().items():
                p.copy_(divided[name])

    def extra_repr(self) -> str:
        """Return what print shows."""
        return f"event_shape={self.event_shape}, lipschitz={self.lipschitz}"

    def get_extra_state(self) -> Tensor:
        """Return the structure of the branch."""
        return structure((self._certified.template, self.lipschitz))

    def set_extra_state(self, state: Tensor) -> None:
        """Refuse the state of another block. Raises FormatError."""
        require_structure((self._certified.template, self.lipschitz), state, "residual block")


class Bijection(Layer):
    """A bijection whose inverse and log-determinant are formulas (`ir.bijections`), differentiated by torch.

    >>> swap = Bijection(ir.bijections.Permutation((2,), (1, 0)))
    >>> swap(torch.tensor([[1.0, 2.0]]))[0].tolist()
    [[2.0, 1.0]]
    """

    initialised: Tensor

    def __init__(self, bijection: ir.bijections.Bijection, *, options: ir.Options | None = None) -> None:
        super().__init__(options)
        self.weights = Parameters(bijection.parameters())
        self._template: Any = bijection
        if hasattr(self._template, "initialised"):
            self.register_buffer("initialised", torch.tensor(self._template.initialised))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one x."""
        return tuple(self._template.in_shape)

    def draws(self, options: ir.Options) -> bool:
        """Return False."""
        del options
        return False

    def _at(self, parameters: dict[str, Tensor], context: Tensor | None = None) -> Any:
        bijection: Any = self._template
        if hasattr(bijection, "initialised") and not bijection.initialised and bool(self.initialised):
            self._template = bijection = replace(bijection, initialised=True)  # looked at once, not in every call
        bijection = bijection.with_parameters(parameters)
        return bijection if context is None else bijection.condition(context)

    def _forward(self, x: Tensor, context: Tensor | None, options: ir.Options) -> Pair:
        y, log_det = self._at(self.weights.tensors(), context).forward(x, options=options, check=False)
        return y, log_det.value

    def _inverse(self, y: Tensor, context: Tensor | None, options: ir.Options) -> Pair:
        bijection = self._at(self.weights.tensors(), context)
        x = bijection.inverse(y, options=options, check=False).x
        return x, -bijection.forward(x, options=options, check=False)[1].value

    def reference(self) -> Any:
        """Return the bijection with the weights as they are now."""
        return self._at({name: p.detach().clone() for name, p in self.weights.tensors().items()})

    def initialise(self, x: Tensor) -> None:
        """Set what waits for a first batch from x; nothing where that has happened."""
        if not hasattr(self._template, "initialised") or bool(self.initialised):
            return
        with torch.no_grad():
            ready = self.reference().initialise(x.detach())
            for name, p in self.weights.tensors().items():
                p.copy_(ready.parameters()[name])
            self.initialised.fill_(True)

    def extra_repr(self) -> str:
        """Return what print shows."""
        return f"{type(self._template).__name__}, event_shape={self.event_shape}"

    def _structure(self) -> Any:
        return replace(self._template, initialised=True) if hasattr(self._template, "initialised") else self._template

    def get_extra_state(self) -> Tensor:
        """Return the structure, such as the order of a permutation."""
        return structure(self._structure())

    def set_extra_state(self, state: Tensor) -> None:
        """Refuse the state of another bijection. Raises FormatError."""
        require_structure(self._structure(), state, type(self._template).__name__)
        if hasattr(self._template, "initialised"):
            self._template = replace(self._template, initialised=False)  # the buffer that was loaded says


class Composition(Layer):
    """f_n ∘ ⋯ ∘ f_1 of modules of this package. With `rebuild` only the last output is kept for the backward pass.

    Then every activation is rebuilt by inversion from the one behind it (Gomez et al. 2017, arXiv 1707.04585), to 256u, or the options'
    rtol if that is finer: memory is that of one step, whatever their number, and an error δ of a rebuilt x moves that step's gradient by
    O(δ).

    >>> both = Composition([ResidualBlock((2, 8, 2)), ResidualBlock((2, 8, 2))])
    >>> both(torch.zeros(3, 2))[1].shape
    torch.Size([3])
    """

    steps: Any  # a ModuleList of layers

    def __init__(self, steps: Sequence[Layer], *, options: ir.Options | None = None, rebuild: bool = False) -> None:
        super().__init__(options)
        self.steps = torch.nn.ModuleList(steps)
        self.rebuild = rebuild

    @property
    def event_shape(self) -> tuple[int, ...]:
        """That of the first step."""
        shape: tuple[int, ...] = self.steps[0].event_shape
        return shape

    @property
    def streams(self) -> int:  # type: ignore[override]  # a constant of the others
        """Those of all steps."""
        return sum(step.streams for step in self.steps)

    def draws(self, options: ir.Options) -> bool:
        """Return whether the log-determinant of some step is random with these options."""
        return any(step.draws(options) for step in self.steps)

    def with_options(self, options: ir.Options) -> list[tuple[Layer, ir.Options]]:
        """Return each step with options whose streams no other step uses."""
        used, found = 0, []
        for step in self.steps:
            found.append((step, options.after(used)))
            used += step.streams
        return found

    def _forward(self, x: Tensor, context: Tensor | None, options: ir.Options) -> Pair:
        if self.rebuild and torch.is_grad_enabled():
            from iresnet_backends.torch_layers.rebuilding import rebuilt

            return rebuilt(self, x, context, options)
        total = x.new_zeros(x.shape[:1])
        for step, own in self.with_options(options):
            x, log_det = step._forward(x, context, own)
            total = total + log_det
        return x, total

    def _inverse(self, y: Tensor, context: Tensor | None, options: ir.Options) -> Pair:
        total = y.new_zeros(y.shape[:1])
        for step, own in reversed(self.with_options(options)):
            y, log_det = step._inverse(y, context, own)
            total = total + log_det
        return y, total

    def reference(self) -> ir.bijections.Composition:
        """Return the composition of the weights as they are now."""
        return bijections.Composition(tuple(step.reference() for step in self.steps))

    def initialise(self, x: Tensor) -> None:
        """Initialise every step from what the steps before it make of x."""
        with torch.no_grad():
            for step in self.steps:
                step.initialise(x)
                x = step.reference()(x)


class FactorOut(Layer):
    """Half of the channels leave at once, the rest goes through further steps: `ir.bijections.FactorOut`.

    >>> scale = FactorOut((4, 2, 2), Bijection(ir.bijections.Permutation((2, 2, 2), (1, 0))))
    >>> scale(torch.zeros(3, 4, 2, 2))[0].shape
    torch.Size([3, 16])
    """

    def __init__(self, event_shape: tuple[int, ...], rest: Layer, *, options: ir.Options | None = None) -> None:
        super().__init__(options)
        self.rest = rest
        self._shape = tuple(event_shape)
        self._channels = rest.event_shape[0]
        self._rest_out = tuple(self.reference().rest.out_shape)  # refuses what does not fit

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(channels, …)."""
        return self._shape

    @property
    def streams(self) -> int:  # type: ignore[override]  # a constant of the others
        """Those of the rest."""
        return self.rest.streams

    def draws(self, options: ir.Options) -> bool:
        """Return whether the log-determinant of the rest is random with these options."""
        return self.rest.draws(options)

    def _forward(self, x: Tensor, context: Tensor | None, options: ir.Options) -> Pair:
        a, log_det = self.rest._forward(x[:, : self._channels], context, options)
        return torch.cat([a.flatten(1), x[:, self._channels :].flatten(1)], 1), log_det

    def _inverse(self, y: Tensor, context: Tensor | None, options: ir.Options) -> Pair:
        left = (self._shape[0] - self._channels, *self._shape[1:])
        n = y.shape[1] - torch.Size(left).numel()
        a, log_det = self.rest._inverse(y[:, :n].reshape(-1, *self._rest_out), context, options)
        return torch.cat([a, y[:, n:].reshape(-1, *left)], 1), log_det

    def reference(self) -> ir.bijections.FactorOut:
        """Return the same with the weights as they are now."""
        return bijections.FactorOut(self._shape, self.rest.reference())

    def initialise(self, x: Tensor) -> None:
        """Initialise the rest from its half of x."""
        self.rest.initialise(x[:, : self._channels])


def layer(bijection: Any, *, lipschitz: float | None = 0.9, options: ir.Options | None = None) -> Layer:
    """Return a bijection of the reference, a block or a sequence of them as a module; blocks get Lip(g) ≤ `lipschitz`.

    >>> print(layer(ir.bijections.ActNorm.uninitialised((2,))))
    Bijection(
      ActNorm, event_shape=(2,)
      (weights): Parameters()
    )
    """
    if isinstance(bijection, bijections.Residual):
        bijection = bijection.block
    if isinstance(bijection, ir.ResidualBlock | ir.Branch):
        return ResidualBlock(bijection, lipschitz=lipschitz, options=options)
    if isinstance(bijection, bijections.FactorOut):
        return FactorOut(bijection.event_shape, layer(bijection.rest, lipschitz=lipschitz, options=options), options=options)
    if isinstance(bijection, bijections.Bijection) and not isinstance(bijection, bijections.Composition):
        return Bijection(bijection, options=options)
    steps = bijection.steps if isinstance(bijection, bijections.Composition) else bijections.Composition(tuple(bijection)).steps
    return Composition([layer(step, lipschitz=lipschitz, options=options) for step in steps], options=options)
