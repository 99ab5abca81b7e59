"""What other packages do with the same weights: a peer is a function of a network that returns the calls it has.

A new one is a few lines: an entry of PEERS. What is not installed is left out, and the page says so.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from networks import Network

TERMS = 5


@dataclass(frozen=True)
class Calls:
    """`estimate`: (F(x), five terms of the series with one probe); `exact`: log det by its determinant; `inverse`: to a tolerance."""

    estimate: Callable[[], Any] | None = None
    exact: Callable[[], Any] | None = None
    inverse: Callable[[torch.Tensor, float], torch.Tensor] | None = None


def normflows(net: Network, *, reduce_memory: bool = True) -> Calls:
    """Return its residual block (`reduce_memory` computes the gradient in the forward pass) and its fixed-point loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from normflows.flows.residual import iResBlock
    net_of_theirs = copy.deepcopy(net.module).requires_grad_()  # in training, as their memory saving asks
    block = iResBlock(net_of_theirs, n_power_series=TERMS, neumann_grad=reduce_memory, grad_in_forward=reduce_memory).train()

    def inverse(y: torch.Tensor, tolerance: float) -> torch.Tensor:
        with torch.no_grad():
            return block._inverse_fixed_point(y, atol=tolerance, rtol=tolerance)

    return Calls(lambda: block(net.tx, 0.0), None, inverse if reduce_memory else None)


def freia(net: Network) -> Calls:
    """Return FrEIA's layer: one product with J a term, each with a pass of its own; fifty steps for an inverse, whatever they reach."""
    from FrEIA.modules import IResNetLayer

    layer = IResNetLayer([tuple(net.x.shape[1:])], jacobian_iterations=TERMS)
    layer.residual = net.module

    def estimate() -> Any:
        return layer([net.tx.clone()])

    return Calls(estimate, None, lambda y, tolerance: layer([y], rev=True, jac=False)[0][0].detach())


def torchdeq(net: Network, *, solver: str) -> Calls:
    """Return a solver of torchdeq for x = y − g(x)."""
    from torchdeq import get_deq

    def inverse(y: torch.Tensor, tolerance: float) -> torch.Tensor:
        deq = get_deq(f_solver=solver, f_tol=tolerance, f_max_iter=100, ift=False, hook_ift=False)
        with torch.no_grad():
            return deq(lambda x: y - net.module(x), y)[0][-1]

    return Calls(inverse=inverse)


def obvious(net: Network) -> Calls:
    """Return what anybody would write: products with Jᵀ by autograd, the Jacobian by torch.func, a loop until steps are small."""
    d = net.x[0].size

    def estimate() -> Any:
        x = net.tx.clone().requires_grad_()
        g = net.module(x)
        v = w = torch.randn_like(x)
        total = torch.zeros(len(x), dtype=x.dtype)
        for k in range(1, TERMS + 1):
            (w,) = torch.autograd.grad(g, x, w, retain_graph=k < TERMS)
            total = total - (-1) ** k * (w * v).flatten(1).sum(dim=1) / k
        return x + g, total

    def exact() -> Any:
        jacobian = torch.func.vmap(torch.func.jacrev(lambda row: net.module(row[None])[0]))(net.tx)
        return torch.linalg.slogdet(torch.eye(d, dtype=net.tx.dtype) + jacobian.reshape(-1, d, d))[1]

    def inverse(y: torch.Tensor, tolerance: float) -> torch.Tensor:
        with torch.no_grad():
            x = y
            for _ in range(1000):
                x, before = y - net.module(x), x
                if bool((x - before).abs().max() < tolerance):
                    break
            return x

    return Calls(estimate, exact if d <= 64 else None, inverse)


def jitted(net: Network) -> Calls:
    """Return the obvious code in JAX, compiled; the loop of the inverse too."""
    import jax
    from jax import numpy as jnp

    weights = [tuple(jnp.asarray(p.numpy()) for p in m.parameters()) for m in net.module[::2]]
    x = jnp.asarray(net.x)
    activation = jax.nn.elu if isinstance(net.module[1], torch.nn.ELU) else lambda z: jax.nn.silu(z) / 1.1

    def g(x: Any) -> Any:
        for i, (w, b) in enumerate(weights):
            x = activation(x) if i else x
            if w.ndim == 2:
                x = x @ w.T + b
            else:
                same = [(w.shape[2] // 2, w.shape[2] // 2)] * 2
                x = jax.lax.conv_general_dilated(x, w, (1, 1), same) + b[:, None, None]
        return x

    @jax.jit
    def estimate(x: Any, key: Any) -> Any:
        value, pullback = jax.vjp(g, x)
        v = w = jax.random.normal(key, x.shape, x.dtype)
        total = jnp.zeros(len(x), x.dtype)
        for k in range(1, TERMS + 1):
            (w,) = pullback(w)
            total = total - (-1) ** k * jnp.sum((w * v).reshape(len(x), -1), axis=1) / k
        return x + value, total

    @jax.jit
    def solve(y: Any, tolerance: Any) -> Any:
        def on(state: Any) -> Any:
            return (jnp.max(jnp.abs(state[0] - state[1])) >= tolerance) & (state[2] < 1000)

        return jax.lax.while_loop(on, lambda state: (y - g(state[0]), state[0], state[2] + 1), (y - g(y), y, 1))[0]

    def inverse(y: torch.Tensor, tolerance: float) -> Any:
        return jax.block_until_ready(solve(jnp.asarray(y.numpy()), tolerance))

    return Calls(lambda: jax.block_until_ready(estimate(x, jax.random.key(0))), None, inverse)


PEERS: dict[str, tuple[str, Callable[[Network], Calls]]] = {
    "obvious torch": ("torch", obvious),
    "obvious JAX, compiled": ("jax", jitted),
    "normflows": ("normflows", normflows),
    "normflows, keeping its graph": ("normflows", partial(normflows, reduce_memory=False)),
    "FrEIA": ("FrEIA", freia),
    "torchdeq, Anderson": ("torchdeq", partial(torchdeq, solver="anderson")),
    "torchdeq, fixed point": ("torchdeq", partial(torchdeq, solver="fixed_point_iter")),
}
"""Name → (the package it needs, its calls)."""


def installed() -> dict[str, Callable[[Network], Calls]]:
    """Return the peers whose packages are here."""
    return {name: calls for name, (package, calls) in PEERS.items() if find_spec(package)}


def missing() -> list[str]:
    """Return the packages that are not here."""
    return sorted({package for package, _ in PEERS.values() if not find_spec(package)})
