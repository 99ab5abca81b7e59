"""Somebody's residual branch as a branch of the reference, of which constants can be proved.

What a certificate is about: the map g in *real arithmetic* that has the numbers which the module's operations meet (weights after
parametrisations and hooks, scales of BatchNorm as they are rounded), in the mode of the audit, with the parameters of now, on all of
ℝᵈ. What the module computes of it is off by its own rounding; the two are compared on 10³ points of five sizes and at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import size
from iresnet_ref.branches.certificates.network import entries
from iresnet_ref.layers.linear import Conv
from iresnet_ref.layers.parallel import Parallel
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.spectral import norm_on_every_image
from iresnet_verify.catalogue.shared.map_errors import refreshed
from iresnet_verify.subject.calls import takes_seed
from iresnet_verify.subject.errors import Refused
from iresnet_verify.subject.module_state import ModuleState, has_modes, is_torch_module, preserved, set_mode
from iresnet_verify.subject.outputs import unpack

if TYPE_CHECKING:
    import iresnet_ref as ir
    from iresnet_ref.branches.certificates.two_sided import TwoSided
    from iresnet_ref.layers.layer import Layer
    from iresnet_verify.check.context import Context

HOW = "matrix norms by shifted Cholesky factorisations, the slopes of activations, and incremental quadratic constraints in float64"
"""Where the truth of a certificate comes from."""
ROWS, NUMBERS = 200, 2**20
"""Probes of each of six sizes, and most numbers among them (7 probes at least)."""
SIGNALS = {"quick": 1024, "standard": 2048, "thorough": 16384}
"""Entries of all signals up to which multipliers are looked for, by budget: seconds, ten of them, minutes."""


@dataclass(frozen=True)
class ReadBranch:
    """g as it was read: `of` says of which callable."""

    branch: ir.Branch
    of: str
    points: int
    modes: str = ""
    """How another mode of the subject differs, in words."""
    rounded: tuple[str, ...] = ()
    """Operations with a constant, such as the 1/3 of a mean, that is no number of the dtype."""

    @property
    def margin(self) -> float:
        """How much Lip(g) may be above that of the branch as read, whose constants were rounded: 0 where none was.

        A factor M is off by E with |E| ≤ 2u|M| entrywise, so ‖E‖₂ ≤ ‖E‖_F ≤ 2u√n‖M‖₂, n the largest event; with ε twice that, and with
        what float64 lost in computing M, a sum of paths of k factors is off by at most (eᵏᵋ − 1)Σ_pathsΠ‖M_i‖.
        """
        if not self.rounded:
            return 0.0
        paths, count, n = _paths(self.branch.layers, self.branch.event_shape)
        epsilon = 4.0 * (rounding.unit_roundoff(self.branch.like) * math.sqrt(n) + rounding.FLOAT64_ROUNDOFF * n)
        return rounding.up(paths * math.expm1(count * epsilon), 4)

    @property
    def bound(self) -> float:
        """What is proved of Lip(g)."""
        bound = self.branch.certificate.bound
        return rounding.up(bound + self.margin) if self.rounded else bound

    def tighten(self, ctx: Context) -> None:
        """Look for the tightest certificate, where the budget allows for the search."""
        if self._signals() <= SIGNALS[ctx.budget.name]:
            self.branch.tighten()

    def find_two_sided(self, ctx: Context) -> TwoSided | None:
        """Look for a proof that F is monotone: a dozen such searches."""
        if self._signals() <= SIGNALS[ctx.budget.name] // 4:
            self.branch.find_two_sided()
        found, off = self.branch.two_sided, self.margin
        if found is None or not off:
            return found
        lower = max(0.0, rounding.down(found.lower - off))
        return replace(found, monotone=rounding.up(found.monotone + off), lower=lower, upper=rounding.up(found.upper + off))

    def _signals(self) -> int:
        return entries(self.branch.layers, self.branch.event_shape)

    def on_every_image(self) -> float | None:
        """Return a bound on Lip(g) for events of every image size, where g is made of convolutions and functions of entries alone."""
        total, layers = 1.0, self.branch.layers
        if not any(isinstance(layer, Conv) for layer in layers) or not all(isinstance(layer, Conv | Pointwise) for layer in layers):
            return None
        for layer in layers:
            factor = norm_on_every_image(layer.weight) if isinstance(layer, Conv) else layer.norm_bound(2.0)
            total = math.nextafter(total * factor, math.inf)
        return total


def _paths(layers: Sequence[Layer], event: tuple[int, ...]) -> tuple[float, int, int]:
    """Return Σ over the paths of Π‖layer‖, rounded up, how many layers there are, and the largest event among theirs."""
    total, count, widest = 1.0, 0, size(event)
    for layer in layers:
        if isinstance(layer, Parallel):
            factors, counts, sizes = zip(*(_paths(path, event) for path in layer.paths), strict=True)
            factor, inside = rounding.up(sum(factors), len(factors)), sum(counts)
            widest = max(widest, *sizes)
        else:
            factor, inside = layer.norm_bound(2.0), 1
        event = layer.out_shape(event)
        total, count, widest = rounding.up(total * factor), count + inside, max(widest, size(event))
    return total, count, widest


def read_residual(ctx: Context) -> ReadBranch:
    """Return g: the subject's `residual` where it gives one, else F − id. Raises `Refused` by the operation that cannot be read."""
    return _read(ctx, "residual") if ctx.subject.residual is not None else read_forward(ctx)


def read_forward(ctx: Context) -> ReadBranch:
    """Return F − id, read of the forward pass itself. Raises `Refused`."""
    return _read(ctx, "forward")


def _read(ctx: Context, name: str) -> ReadBranch:
    import iresnet_ref as ir

    refreshed(ctx)
    function = getattr(ctx.subject, name)
    if isinstance(function, ir.Branch):
        return ReadBranch(function, "residual, a branch of iresnet_ref", 0)
    if isinstance(function, ir.ResidualBlock):
        return ReadBranch(function.branch, "forward, a block of iresnet_ref", 0)
    if ctx.subject.context_shape is not None:
        raise Refused("g is another map for each context: nothing is read of it")
    rows = max(7, min(ROWS, NUMBERS // ctx.d))
    rounded: list[str] = []
    branch = _of_framework(ctx, function, name, rows, rounded)
    found = ReadBranch(branch, "residual" if name == "residual" else "forward, less its input", 5 * rows + 1)
    return replace(found, modes=_other_modes(ctx, name), rounded=tuple(dict.fromkeys(rounded)))


def _other_modes(ctx: Context, name: str) -> str:
    """Say of which mode the certificate is, where the module computes something else in another one."""
    module, mode = ctx.subject.module, ctx.mode
    if mode is None or not has_modes(module):
        return ""
    x = ctx.inputs(ROWS if ctx.d * ROWS <= NUMBERS else 7)
    here = ctx.f.residual(x, seed=0) if name == "residual" and ctx.f.residual is not None else ctx.f.forward(x, seed=0)
    for other in set(ctx.subject.modes) - {mode}:
        with preserved(module):
            set_mode(module, other)
            try:
                there = ctx.f.residual(x, seed=0) if name == "residual" and ctx.f.residual is not None else ctx.f.forward(x, seed=0)
            except Exception as error:
                return f"; in mode {other!r} it raises {type(error).__name__}: this is about mode {mode!r}"
        if not np.array_equal(here, there):
            return f"; in mode {other!r} it computes something else: this is about mode {mode!r}"
    return ""


def _of_framework(ctx: Context, function: Callable[..., Any], name: str, rows: int, rounded: list[str]) -> ir.Branch:
    seed = {"seed": 0} if takes_seed(function) else {}

    def compute(x: Any) -> Any:
        return unpack(name, function(x, **seed))[0]

    framework = ctx.framework.name
    if framework.startswith("jax"):
        from iresnet_backends.reading import jax_graph

        try:
            with ctx.framework.call_context():
                return jax_graph.read(compute, ctx.subject.event_shape, ctx.native(ctx.inputs(1)), less_input=name == "forward", rows=rows,
                                      rounded=rounded)
        except Exception as error:
            raise Refused(f"{name} cannot be read: {_reason(error)}") from error
    if framework != "torch":
        raise Refused(f"nothing records what a function of {framework} does; give residual= as a branch of iresnet_ref")
    from iresnet_backends.reading.torch_function import read

    owner = ctx.subject.module
    if owner is None:
        owner = next((o for o in (function, getattr(function, "__self__", None)) if is_torch_module(o)), None)
    try:
        compute(ctx.native(ctx.inputs(7)))  # what sets itself up at its first call has done so
        state = ModuleState(owner)
        found = read(compute, owner, ctx.subject.event_shape, ctx.native(ctx.inputs(1)), evaluate=False, less_input=name == "forward",
                     rows=rows, rounded=rounded)
    except Exception as error:
        raise Refused(f"{name} cannot be read: {_reason(error)}") from error
    if changed := state.changes():
        state.restore()
        raise Refused(f"{name} cannot be read: it changes {', '.join(sorted(set(changed))[:3])}, so that the next call is another map")
    return found


def _reason(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text.removeprefix("from_torch: ").removeprefix("from_jax: ")


def rounded_up(value: float) -> str:
    """Write a bound with six digits, rounded up.

    >>> rounded_up(0.1 + 1e-12), rounded_up(0.25)
    ('0.100001', '0.25')
    """
    shown = f"{value:.6g}"
    if float(shown) >= value or not math.isfinite(value):
        return shown
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 5)
    return f"{(math.floor(value / unit) + 1) * unit:.6g}"
