"""The methods that give the rows of a Jacobian of a subject's callable, in the order in which they are tried.

torch: autograd on g, autograd on F, `.backward()` on F with a fresh forward for each row. JAX: `jax.vjp` and `jax.jvp` on g and
on F. Other frameworks: none. None is trusted: `jacobian` compares each with a directional difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from iresnet_verify.oracle import rows_jax, rows_torch
from iresnet_verify.subject.calls import Caller, flat
from iresnet_verify.subject.subject import HostArray, Native

Array = np.ndarray[Any, np.dtype[np.float64]]
Guard = Callable[[], AbstractContextManager[None]]
"""Puts the module's state back, gradients included."""


@dataclass(frozen=True)
class Method:
    """One way to a Jacobian."""

    source: str
    """Its name in reports."""
    rows: Callable[[HostArray], Array]
    """x -> J (batch, d, d)."""
    of_residual: bool
    """Whether J is that of g = F − id."""
    products: Callable[[HostArray, Array], Array] | None = None
    """(x, w (batch, probes, d)) -> wᵀJ."""


def derivative_methods(caller: Caller, guard: Guard, seed: int) -> list[Method]:
    """Return the methods that the subject's framework offers; every call is seeded by `seed`."""
    names = [*(["residual"] if caller.subject.residual is not None else []), "forward"]
    if caller.framework.name.startswith("jax"):
        return [
            Method(f"{what} of {_symbol(name)} by jax.{how}", partial(_by_jax, made, caller, name, seed), name == "residual")
            for name in names for what, how, made in (("rows", "vjp", rows_jax.rows), ("columns", "jvp", rows_jax.columns))
        ]
    if not caller.framework.differentiable:
        return []
    return [
        *(Method(f"rows of {_symbol(name)} by autograd", partial(_autograd_rows, caller, guard, name, seed), name == "residual",
                 partial(_autograd_products, caller, guard, name, seed)) for name in names),
        Method("rows by .backward()", partial(_backward_rows, caller, guard, seed), False),
    ]


def _symbol(name: str) -> str:
    return "g" if name == "residual" else "F"


def _by_jax(made: Callable[..., Array], caller: Caller, name: str, seed: int, x: HostArray) -> Array:
    return made(caller, name, x, seed)


def _autograd_rows(caller: Caller, guard: Guard, name: str, seed: int, x: HostArray) -> Array:
    framework = caller.framework

    def attempt(batched: bool) -> Array:
        with guard(), framework.call_context():
            leaf = framework.native(x, requires_grad=True)
            y = caller.event(name, leaf.clone(), seed=seed)[0]
            J = rows_torch.rows(y.reshape(y.shape[0], -1), leaf, batched=batched)
            return np.asarray(framework.host(J), dtype=np.float64).reshape(len(x), flat(x).shape[1], -1)

    return rows_torch.batched_or_single(caller, attempt)


def _autograd_products(caller: Caller, guard: Guard, name: str, seed: int, x: HostArray, w: Array) -> Array:
    """(batch, probes, d): wᵀJ for w (batch, probes, d), one reverse pass each."""
    import torch

    framework = caller.framework
    with guard(), framework.call_context():
        leaf = framework.native(x, requires_grad=True)
        y = caller.event(name, leaf.clone(), seed=seed)[0]
        found = [torch.autograd.grad(y, leaf, torch.as_tensor(w[:, k]).reshape(y.shape).to(y), retain_graph=True)[0]
                 for k in range(w.shape[1])]
        return np.stack([flat(framework.host(row)).astype(np.float64) for row in found], axis=1)


def _backward_rows(caller: Caller, guard: Guard, seed: int, x: HostArray) -> Array:
    rows: list[Native | None] = []
    for i in range(int(np.prod(x.shape[1:], dtype=int))):
        with guard(), caller.framework.call_context():
            leaf = caller.framework.native(x, requires_grad=True)
            y = caller.event("forward", leaf.clone(), seed=seed)[0]
            y.reshape(y.shape[0], -1)[:, i].sum().backward()
            rows.append(None if leaf.grad is None else leaf.grad.detach().clone())
    return _stacked(rows, x, caller)


def _stacked(rows: Sequence[Native | None], x: HostArray, caller: Caller) -> Array:
    """The rows as one array; a row without a gradient is 0, but not all of them."""
    if all(row is None for row in rows):
        raise ValueError("no output depends on the input")
    zero = np.zeros(x.shape)
    return np.stack([flat(zero if row is None else caller.framework.host(row)).astype(np.float64) for row in rows], axis=1)
