"""The block, its inverse and the division by norms as functions of JAX with gradients of the reference (`jax.custom_vjp`).

Values and gradients are calls of the reference, in one of two ways, under every transformation alike. Exact log-determinants, series and
Arnoldi's are compiled. What decides on values cannot be: the lengths of a roulette, the steps of an inversion, proofs. There
the host is called, on arrays of NumPy. The backward pass keeps x and the weights, however many terms are drawn, and takes the draws
of the forward pass ([C19] eq. 8).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import iresnet_ref as ir
from iresnet_backends.jax_layers.host import TracedProbes, is_traced, on_host, seed_of
from iresnet_backends.layer_options import probes_of, reseeded, settled, with_probes
from iresnet_ref.branches.certificate import Certificate
from iresnet_ref.branches.normalised import Scaling
from iresnet_ref.log_determinant.evaluate import EXACT_UP_TO
from iresnet_ref.log_determinant.methods import LogDetMethod, Truncated, named

Pair = tuple[Any, Any]


@dataclass(frozen=True)
class How:
    """How a block computes: its options, the constant that is stated of it, and the bound that its division has proved."""

    options: ir.Options
    lipschitz: float | None = None
    proved: float | None = None

    def block(self, branch: ir.Branch) -> ir.ResidualBlock:
        """Return F = id + g."""
        if self.proved is not None:
            vars(branch)["_product"] = Certificate(self.proved, True, "each weight was divided by a proved bound of its norm")
        return ir.ResidualBlock(branch, self.lipschitz)

    def method(self, words: Any) -> LogDetMethod:
        """Return the method of the log-determinant with probes of this seed; None leaves its own."""
        method = named(self.options.logdet)
        probes = probes_of(method)
        if words is None or probes is None:
            return method
        if not is_traced(words):
            return reseeded(method, seed_of(words))
        return with_probes(method, TracedProbes(probes.seed, probes.stream, probes.kind, probes.count, probes.block, probes.first, words))

    @property
    def compiles(self) -> bool:
        """Whether value and gradient decide on no value."""
        method = named(self.options.logdet)
        return isinstance(method, ir.Exact) or (isinstance(method, Truncated) and method.standard_error is None)

    def settled(self, branch: ir.Branch) -> How:
        """Return the same with `ir.Auto` replaced by what it does for this branch."""
        if not isinstance(named(self.options.logdet), ir.Auto):
            return self
        leaves, structure = jax.tree.flatten(branch)
        return replace(self, options=settled(self.options, _rank(structure, tuple((a.shape, a.dtype) for a in leaves)) <= EXACT_UP_TO))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def forward(how: How, branch: ir.Branch, x: Any, words: Any) -> Pair:
    """Return (F(x), log det dF/dx); `words` are the seed of the probes, None takes those of the options."""
    return _forward(how, branch, x, words)[0]


def _forward(how: How, branch: ir.Branch, x: Any, words: Any) -> tuple[Pair, Any]:
    y, log_det = _carried_out(_value, (x, _rows(x)), how.compiles, how, branch, x, words)
    return (_after(y, log_det), log_det), (branch, x, words)


def _forward_bar(how: How, kept: Any, bars: Pair) -> tuple[Any, Any, None]:
    branch, x, words = kept
    x = _after(x, bars[0])
    x_bar, of_branch = _carried_out(_gradient, (x, branch.parameters()), how.compiles, how, branch, x, words, *bars)
    return branch.with_parameters(of_branch), x_bar, None


forward.defvjp(_forward, _forward_bar)


def _after(x: Any, *before: Any) -> Any:
    """Return x, which is there only after all of `before`: factorisations of one block after those of another.

    XLA on a CPU of few cores waits for ever where several run at once: each keeps a thread, and waits for another one. What it does not
    know to be finite it adds even if multiplied by zero.
    """
    return x + 0.0 * sum(jnp.nan_to_num(jnp.sum(a)) for a in before)


def _value(how: How, branch: ir.Branch, x: Any, words: Any) -> Pair:
    step = ir.bijections.Residual(how.block(branch))
    y, log_det = step.forward(x, options=replace(how.options, logdet=how.method(words)))
    return y, log_det.value


def _gradient(how: How, branch: ir.Branch, x: Any, words: Any, y_bar: Any, weights: Any) -> Pair:
    found = ir.logdet_gradient(how.block(branch), x, how.method(words), weights=weights, y_bar=y_bar)
    return found.x_bar, found.parameters


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def inverse(how: How, branch: ir.Branch, y: Any, words: Any) -> Pair:
    """Return (F⁻¹(y), log det dF⁻¹/dy). Raises ConvergenceError; from a compiled program JAX's own error with its text."""
    return _inverse(how, branch, y, words)[0]


def _inverse(how: How, branch: ir.Branch, y: Any, words: Any) -> tuple[Pair, Any]:
    found = _carried_out(_preimage, (y, _rows(y)), False, how, branch, y, words)
    return found, (branch, found[0], words)


def _inverse_bar(how: How, kept: Any, bars: Pair) -> tuple[Any, Any, None]:
    branch, x, words = kept
    y_bar, of_branch = _carried_out(_implicit_gradient, (x, branch.parameters()), False, how, branch, x, words, *bars)
    return branch.with_parameters(of_branch), y_bar, None


inverse.defvjp(_inverse, _inverse_bar)


def _preimage(how: How, branch: ir.Branch, y: Any, words: Any) -> Pair:
    block = how.block(branch)
    x = ir.invert(block, y, how.options.inverse, rtol=how.options.rtol).x
    return x, -ir.logdet(block, x, how.method(words), check=False).value


def _implicit_gradient(how: How, branch: ir.Branch, x: Any, words: Any, x_bar: Any, weights: Any) -> Pair:
    found = ir.inverse_gradient(how.block(branch), x, x_bar, weights=weights, method=how.method(words), throw=False)
    return found.y_bar, found.parameters


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def divided(lipschitz: float, branch: ir.Branch) -> ir.Branch:
    """Return the branch with each weight divided by a proved bound of its norm where it is above its share, Lip(g) ≤ `lipschitz`.

    Raises: NotContractiveError where the bound is not proved.
    """
    return _divided(lipschitz, branch)[0]


def _divided(lipschitz: float, branch: ir.Branch) -> tuple[ir.Branch, Any]:
    weights = _weights(branch)
    number = {key: jax.ShapeDtypeStruct((), p.dtype) for key, p in weights.items()}
    scales, sigmas, slopes = _carried_out(_scalings, (number, number, weights), False, lipschitz, branch)
    scaled = {key: p * scales[key] for key, p in weights.items()}
    return branch.with_parameters({**branch.parameters(), **scaled}), (scales, sigmas, slopes, weights)


def _divided_bar(lipschitz: float, kept: Any, branch_bar: ir.Branch) -> tuple[ir.Branch]:
    del lipschitz
    scales, sigmas, slopes, weights = kept
    raw = branch_bar.parameters()
    for key, weight in weights.items():
        raw[key] = Scaling(scales[key], sigmas[key], slopes[key]).pullback(raw[key], weight)
    return (branch_bar.with_parameters(raw),)


divided.defvjp(_divided, _divided_bar)


def _scalings(lipschitz: float, branch: ir.Branch) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return what each weight is multiplied by, its norm and the slope of that; 1, 1 and 0 where it is not divided."""
    normalised = normalised_branch(lipschitz, branch)
    scales, sigmas, slopes = {}, {}, {}
    for key, weight in _weights(branch).items():
        own = normalised.scalings.get(key.removesuffix("weight"))
        one = np.ones((), dtype=weight.dtype)
        scales[key], sigmas[key] = (one, one) if own is None else (own.scale * one, own.sigma * one)
        slopes[key] = 0.0 * weight if own is None else own.slope
    return scales, sigmas, slopes


def _weights(branch: ir.Branch) -> dict[str, Any]:
    return {key: p for key, p in branch.parameters().items() if key.rpartition(".")[2] == "weight"}


def normalised_branch(lipschitz: float, branch: ir.Branch) -> ir.NormalisedBranch:
    """Return the division of these weights. Raises NotContractiveError where Lip(g) ≤ `lipschitz` is not proved of it."""
    normalised = ir.NormalisedBranch(branch, lipschitz)
    found = normalised.branch.certificate
    if not found.bound <= lipschitz:
        raise ir.NotContractiveError(
            f"ResidualBlock: expected proved Lip(g) ≤ {lipschitz}, got {found.bound:.6g} ({found.reason}); try ir.mlp, ir.convnet "
            "or ir.densenet, whose layers state finite constants"
        )
    return normalised


def _carried_out(function: Callable[..., Any], like: Any, compiles: bool, how: Any, *arguments: Any) -> Any:
    """Return function(how, *arguments), compiled or by the host; what the host returns is shaped as `like`."""
    if compiles:
        return _compiled(function)(how, *arguments)
    return on_host(partial(function, how), jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), like), *arguments)


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function, static_argnums=0)


def _rows(x: Any) -> Any:
    """Return the shape of one number a row."""
    return jax.ShapeDtypeStruct(x.shape[:1], x.dtype)


@lru_cache(maxsize=256)
def _rank(structure: Any, leaves: tuple[tuple[tuple[int, ...], Any], ...]) -> int:
    """Return the narrowest dimension of a branch of this structure."""
    found: list[int] = []

    def look(branch: ir.Branch) -> Any:
        like: Any = branch.like
        found.append(branch.jacobian(jnp.zeros((1, *branch.event_shape), dtype=like.dtype)).rank)
        return like

    jax.eval_shape(look, jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves]))
    return found[0]
