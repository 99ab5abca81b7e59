"""The parts of a torch subject: its blocks as functions, and its parameters, each of which may be changed for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import permutations
from typing import Any

import numpy as np

from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import Array
from iresnet_verify.subject.module_state import is_torch_module
from iresnet_verify.subject.subject import HostArray

MOST = 24
"""Parameters that are tried, at most."""


def parameters(case: Case) -> list[str]:
    """Names of the parameters of the subject's module."""
    module = case.ctx.subject.module
    return [name for name, p in module.named_parameters() if p.numel()][:MOST] if is_torch_module(module) else []


def parameter_values(case: Case) -> dict[str, Array]:
    """Each parameter as a host array."""
    module = case.ctx.subject.module
    if not is_torch_module(module):
        return {}
    return {name: p.detach().cpu().double().numpy().copy() for name, p in module.named_parameters() if p.numel()}


@contextmanager
def with_parameter(case: Case, name: str, factor: float) -> Iterator[None]:
    """The parameter multiplied by `factor`, for the length of the block."""
    import torch

    parameter = dict(case.ctx.subject.module.named_parameters())[name]
    kept = parameter.detach().clone()
    try:
        with torch.no_grad():
            parameter.mul_(factor)
        yield
    finally:
        with torch.no_grad():
            parameter.copy_(kept)


def blocks(case: Case) -> list[Callable[[HostArray], HostArray]] | None:
    """The blocks of which F is the composition, in its order; None where no module's children compose to F."""
    module = case.ctx.subject.module
    if not is_torch_module(module):
        return None
    for candidate in module.modules():
        children = list(candidate.children())
        if len(children) < 2:
            continue
        chain = [_as_function(case, child) for child in children]
        try:
            x = case.x
            for block in chain:
                x = block(x)
        except Exception:
            continue
        if x.shape == case.y.shape and np.allclose(x, case.y, rtol=1e6 * case.ctx.u, atol=1e6 * case.ctx.u):
            return chain
    return None


def orders(n: int) -> list[tuple[tuple[int, ...], str]]:
    """The wrong orders of n blocks that are tried, in words too: all of up to 4, the reverse, exchanges of neighbours up to 8."""
    right = tuple(range(n))
    found = [(right[::-1], "in the reverse order")]
    if n <= 4:
        found += [(p, f"in the order {', '.join(str(i + 1) for i in p)}") for p in permutations(right) if p not in (right, right[::-1])]
    elif n <= 8:
        found += [((*right[:i], i + 1, i, *right[i + 2 :]), f"with blocks {i + 1} and {i + 2} exchanged") for i in range(n - 1)]
    return found


def _as_function(case: Case, child: Any) -> Callable[[HostArray], HostArray]:
    def call(x: HostArray) -> HostArray:
        case.ctx.framework.seed(SEED)
        with case.ctx.guard(), case.ctx.framework.call_context():
            result = child(case.ctx.native(x))
            return case.ctx.host(result[0] if isinstance(result, tuple | list) else result)

    return call
