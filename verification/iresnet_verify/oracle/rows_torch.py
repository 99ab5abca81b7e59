"""Rows of the Jacobian of a torch subject's callable by reverse passes: all at once where that works, else one by one.

All at once means `torch.autograd.grad(..., is_grads_batched=True)`: the recorded graph is walked once with a batch of
cotangents, the subject itself is called as usual. What a layer's own backward makes of batched cotangents is not taken
on trust: one ordinary reverse pass with random signs w must give the same wᵀJ, each row to K·u·d of its size. A layer that
raises or disagrees, or whose graph can be used only once, is differentiated row by row on a new graph (`batched_or_single`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from iresnet_verify.subject.frameworks import OPERATIONS

if TYPE_CHECKING:
    from iresnet_verify.subject.calls import Caller
    from iresnet_verify.subject.subject import Native

WORTH = 16
"""Rows from which on all at once is the faster way: a batched pass takes about seven times as long as a single one."""
SIZE = 2**18
"""Numbers in one batch of cotangents, at most (one cotangent at least): 2 MiB of float64, which a cache holds; with 16 MiB a
convolutional block in 768 dimensions takes a third longer."""

T = TypeVar("T")


def batched_or_single(caller: Caller, attempt: Callable[[bool], T]) -> T:
    """Return attempt(True), which works at once, or attempt(False) from when on that raises; each puts the state back itself."""
    if not caller.batched_cotangents:
        return attempt(False)
    try:
        return attempt(True)
    except Exception:  # whatever a backward pass raises on batched cotangents
        result = attempt(False)
        caller.batched_cotangents = False
        return result


def rows(y: Native, leaf: Native, *, batched: bool, create_graph: bool = False) -> Native:
    """Return (batch, d, *event): [n, i] is the gradient of y[n, i], y being (batch, d), with respect to row n of the leaf."""
    return _at_once(y, leaf, create_graph) if batched and y.shape[1] >= WORTH else _one_by_one(y, leaf, create_graph)


def _one_by_one(y: Native, leaf: Native, create_graph: bool) -> Native:
    import torch

    found = [torch.autograd.grad(y[:, i].sum(), leaf, retain_graph=True, create_graph=create_graph, allow_unused=True)[0]
             for i in range(y.shape[1])]
    return torch.stack([torch.zeros_like(leaf) if row is None else row for row in found], dim=1)


def _at_once(y: Native, leaf: Native, create_graph: bool) -> Native:
    import torch

    n, d = y.shape
    basis = torch.eye(d, dtype=y.dtype, device=y.device)
    chunk = max(1, SIZE // max(1, n * d))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns where it has no batched form and loops itself
        parts = [
            torch.autograd.grad(y, leaf, basis[i : i + chunk, None].expand(-1, n, d), retain_graph=True,
                                create_graph=create_graph, is_grads_batched=True)[0]
            for i in range(0, d, chunk)
        ]
    J = torch.cat(parts).movedim(0, 1)
    _confirm(y, leaf, J.detach())
    return J


def _confirm(y: Native, leaf: Native, J: Native) -> None:
    """Raise where an ordinary reverse pass with random signs does not give wᵀJ."""
    import torch

    made = torch.Generator().manual_seed(0)
    w = (torch.randint(0, 2, y.shape, generator=made) * 2 - 1).to(y)
    (once,) = torch.autograd.grad(y, leaf, w, retain_graph=True)
    flat = J.reshape(*y.shape, -1)
    gap = torch.linalg.vector_norm(torch.einsum("ni,nij->nj", w, flat) - once.reshape(len(y), -1), dim=1)
    allowed = OPERATIONS * torch.finfo(y.dtype).eps / 2 * y.shape[1] * torch.linalg.vector_norm(flat, dim=(1, 2))
    finite = torch.isfinite(once).reshape(len(y), -1).all(1)
    if not bool((gap <= allowed)[finite].all()):
        raise ArithmeticError("batched cotangents give other rows")
