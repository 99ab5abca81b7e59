"""The linear layers one by one: the norm of each operator as it is applied, on the grid where it is applied.

‖A‖₂ is that of x ↦ apply(x) − apply(0), so padding, stride, dilation, groups and the spatial size count as they are; a norm
of the reshaped kernel, or at another grid, is not it. Where a layer has at most `DENSE` inputs the operator is built column
by column and its norm is the SVD's; above, power iteration on AᵀA with Aᵀ by autograd gives a lower bound.

Layers come from `linear_maps`, a list of (name, apply, in_shape) or (name, apply, in_shape, claimed norm); of a torch
module without it, from every `Linear` and `Conv` that one call of the residual passes, at the shape it met there, and from
every other module with parameters of its own that acts as an affine map there, whatever its class. A number that such a module keeps
as `coeff`, `coefficient`, `lipschitz` or the like is noted beside its norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.far_starts import steep_layers
from iresnet_verify.catalogue.shared.map_errors import refreshed
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import above_claim, beyond, verdict
from iresnet_verify.measurements import maps as measures
from iresnet_verify.subject.frameworks import OPERATIONS
from iresnet_verify.subject.module_state import is_torch_module

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

DENSE = 1024
"""Inputs of a layer up to which its matrix is built."""
POWER = 60
"""Steps of power iteration above that."""


@dataclass(frozen=True)
class Layer:
    """One linear map: its name, how it acts on native arrays, the shape of one input, and the norm claimed for it."""

    name: str
    apply: Callable[[Any], Any]
    shape: tuple[int, ...]
    claimed: float | None = None
    coefficient: tuple[str, float] | None = None
    """What the layer itself keeps as its norm, and under which name."""


@dataclass(frozen=True)
class Norm:
    """‖A‖₂, whether it is exact (else a lower bound), and the unit vector that attains it."""

    value: float
    exact: bool
    direction: HostArray
    outputs: int
    """Numbers that come out of the layer."""
    error: float
    """Rounding of the value: each image is off by u of its size, that of 0 among them."""


def layers_of(ctx: Context) -> list[Layer]:
    """Return the layers that the subject shows, at each spatial size it declares."""
    if ctx.subject.linear_maps is not None:
        return [Layer(name, apply, tuple(shape), *rest) for name, apply, shape, *rest in ctx.subject.linear_maps()]
    if not is_torch_module(ctx.subject.module):
        return []
    return [layer for shape in (ctx.subject.event_shape, *ctx.subject.other_shapes) for layer in _met(ctx, shape)]


def _met(ctx: Context, shape: tuple[int, ...]) -> Iterator[Layer]:
    """The layers that a call at this event shape passes: `Linear`, `Conv`, and what is affine without being one of them."""
    import torch

    kinds = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)  # pyright: ignore[reportPrivateUsage]
    met: dict[str, Layer] = {}

    @contextmanager
    def watched(name: str, module: Any) -> Iterator[None]:
        def note(module: Any, inputs: tuple[Any, ...], _: Any) -> None:
            if len(inputs) == 1 and hasattr(inputs[0], "shape"):
                shape = tuple(inputs[0].shape[1:])
                title = f"{name or 'layer'} at {shape}"
                met.setdefault(title, Layer(title, module, shape, None, _coefficient(module)))

        handle = module.register_forward_hook(note)
        try:
            yield
        finally:
            handle.remove()

    from contextlib import ExitStack

    with ctx.guard(), ExitStack() as stack:
        for name, module in ctx.subject.module.named_modules():
            if isinstance(module, kinds) or [*module.parameters(recurse=False)]:
                stack.enter_context(watched(name, module))
        x = ctx.rng.standard_normal((2, *shape)).astype(ctx.inputs(1).dtype)
        ctx.caller.invoke("forward" if ctx.subject.residual is None else "residual", ctx.native(x))
    for layer in met.values():
        if isinstance(layer.apply, kinds) or _is_affine(ctx, layer):
            yield layer


COEFFICIENTS = ("coeff", "coefficient", "lipschitz", "lipschitz_constant", "lip_const", "max_norm")
"""Names under which layers keep the norm that they normalise to."""


def _coefficient(module: Any) -> tuple[str, float] | None:
    """The number that a layer keeps as its norm, and its name."""
    for name in COEFFICIENTS:
        value = getattr(module, name, None)
        with suppress(TypeError, ValueError, RuntimeError):
            if value is not None and not callable(value) and 0.0 < float(value) < 1e3:
                return name, float(value)
    return None


def _is_affine(ctx: Context, layer: Layer) -> bool:
    """Whether layer(a + 2b) − layer(a) = 2(layer(a + b) − layer(a)) for random a, b, and it changes with b at all."""
    shape = (1, *layer.shape)
    a, b = (ctx.rng.standard_normal(shape).astype(ctx.inputs(1).dtype) for _ in range(2))
    try:
        with ctx.guard(), ctx.framework.call_context():
            zero, once, twice = (np.asarray(ctx.host(layer.apply(ctx.native(p))), dtype=np.float64) for p in (a, a + b, a + 2 * b))
    except Exception:  # not a map of one array
        return False
    size = np.abs(once - zero).max(initial=0.0)
    return bool(size > 0.0 and np.abs((twice - zero) - 2 * (once - zero)).max() <= OPERATIONS * ctx.u * (size + np.abs(zero).max()) * 8)


def operator_norm(ctx: Context, layer: Layer) -> Norm:
    """Return the norm of one layer."""
    dtype = ctx.inputs(1).dtype
    zero = np.zeros((1, *layer.shape), dtype=dtype)

    def act(v: HostArray) -> HostArray:
        with ctx.guard(), ctx.framework.call_context():
            out = ctx.host(layer.apply(ctx.native(np.concatenate([v.astype(dtype), zero]))))
        offset.append(float(np.linalg.norm(out[-1].astype(np.float64))))
        return np.asarray(out[:-1] - out[-1:], dtype=np.float64)

    offset: list[float] = []
    n = math.prod(layer.shape)
    if n <= DENSE:
        columns = act(np.eye(n).reshape(n, *layer.shape)).reshape(n, -1)
        u, sigma, _ = np.linalg.svd(columns, full_matrices=False)
        error = ctx.u * (float(np.linalg.norm(columns)) + 2.0 * math.sqrt(n) * offset[-1]) + n * 2.0**-53 * float(sigma[0])
        return Norm(float(sigma[0]), True, u[:, 0].reshape(layer.shape), columns.shape[1], error)
    v = ctx.rng.standard_normal((1, *layer.shape))
    value = 0.0
    for _ in range(POWER):
        v /= np.linalg.norm(v)
        image = act(v)
        value = float(np.linalg.norm(image))
        following = _transposed(ctx, layer, image)
        if value == 0.0 or following is None:
            break
        v, last = following, v
    else:
        v = last
    return Norm(value, False, (v / max(float(np.linalg.norm(v)), 1e-300)).reshape(layer.shape), image.size,
                OPERATIONS * ctx.u * math.sqrt(n) * (value + 2.0 * offset[-1]))


def _transposed(ctx: Context, layer: Layer, image: HostArray) -> HostArray | None:
    """Aᵀ applied by autograd; None where there is none."""
    if ctx.framework.name != "torch":
        return None
    import torch

    with ctx.guard(), ctx.framework.call_context():
        leaf = ctx.native(np.zeros((1, *layer.shape)), requires_grad=True)
        out = layer.apply(leaf)
        (back,) = torch.autograd.grad(out, leaf, torch.as_tensor(image).to(out))
        return np.asarray(ctx.host(back), dtype=np.float64)


@check(
    "lipschitz.layers",
    claim="Every linear layer has at most the norm claimed for it, ‖A‖₂ ≤ c, on the grid where it is used.",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), eq. 2: Lip(g) ≤ Π Lip(φ)·‖A_i‖₂; Gouk et al. 2018 (arXiv 1804.04368)",
    kind="search", needs=("lipschitz",), cost="one SVD a layer, or 60 products with A and Aᵀ where it has over 1,024 inputs",
    compares_values=False,
    catches="norms of reshaped kernels, at another spatial size or padding, with a stride that is not used, from few power iterations",
)
def layers(ctx: Context) -> Outcome:
    """Each layer against its own claim; without one, all norms and their product are reported next to the claimed L."""
    refreshed(ctx)
    shown = {layer.name: layer for layer in layers_of(ctx)}
    if not shown:
        return Outcome("skipped", "no linear layer is visible: give linear_maps, or a torch module with Linear or Conv layers")
    found = {name: operator_norm(ctx, layer) for name, layer in shown.items()}
    claims = {name: layer.claimed for name, layer in shown.items() if layer.claimed is not None}
    product = math.prod(norm.value for norm in found.values())
    how = "exactly" if all(norm.exact for norm in found.values()) else "from below where a layer has over 1,024 inputs"
    between = {f"slope of {steep.name}": steep.slope for steep in steep_layers(ctx)}
    norms = f"{len(shown)} layers, norms known {how}, their product is {product:.4g}, L = {ctx.subject.lipschitz:.4g} is claimed"
    if max(between.values(), default=0.0) > 1.0 + 1e-3:
        norms += f"; note: a layer without parameters has the slope {max(between.values()):.4g}"
    above = [f"{name} has the norm {beyond(found[name].value, kept[1])}, its {kept[0]} is {kept[1]:.6g}" for name, layer in shown.items()
             if (kept := layer.coefficient) is not None
             and found[name].value > kept[1] * (1.0 + 4.0 * max(math.prod(layer.shape), found[name].outputs) * ctx.u) + found[name].error]
    norms += "".join(f"; note: {text}" for text in above[:3])
    slack = {name: 4.0 * max(math.prod(shown[name].shape), found[name].outputs) * ctx.u for name in claims}
    over = max((found[name].value - claim for name, claim in claims.items()), default=0.0)
    return verdict(
        {name: found[name].value for name in claims},
        {name: claim * (1.0 + slack[name]) + found[name].error for name, claim in claims.items()},
        expected=lambda at: f"an operator norm of at most {claims[at.case]:.6g} of {at.case} on {shown[at.case].shape}",
        got=lambda at: beyond(at.error, claims[at.case]),
        remedy="take the norm of the operator as it is applied, with enough iterations",
        passed=f"all {len(claims)} claims are kept; {norms}{above_claim(over, 0.0)}",
        nothing=f"no layer has a norm claimed for it; {norms}",
        tolerance="c(1 + 4nu), n the larger number of its inputs and outputs, and rounding of the images",
        oracle="the layers themselves, applied",
        evidence={**{name: norm.value for name, norm in found.items()}, **between, "layers": len(shown), "with_a_claim": len(claims),
                  "product": product},
        counterexample=lambda at: Counterexample({"name": at.case, "v": found[at.case].direction[None], "claimed": at.bound},
                                                 measures.layer_stretch),
    )
