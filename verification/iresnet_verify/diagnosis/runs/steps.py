"""Forward as a chain of the steps that its code makes: z₀ = x, z₁, …, z_n = F(x), each of as many numbers as x.

An intermediate result is a link of the chain if F depends on x through it alone: with that of other rows put in its place, F gives
these rows' images. So every step is a bijection, and may be run by itself from any values.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import truth_at
from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import Array, as_far_as_made
from iresnet_verify.diagnosis.trials.code_changes import is_own
from iresnet_verify.subject.module_state import is_torch_module
from iresnet_verify.subject.subject import HostArray

MANY = 64
"""Intermediate results that are tried."""
MOST = 12
"""Links that are kept: of more, the last of each line."""


@dataclass(frozen=True)
class Link:
    """An intermediate result."""

    number: int
    """Its place among the results of as many numbers as x."""
    place: str
    """The function and the line that make it."""


@dataclass(frozen=True)
class Chain:
    """The steps of forward at the case's inputs."""

    case: Case
    links: tuple[Link, ...]
    """Those between x and F(x)."""

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.links) + 1

    def words(self, first: int, last: int) -> str:
        """Steps `first` to `last` of the chain, counted from 0, the last one not included."""
        which = f"step {first + 1}" if last == first + 1 else f"steps {first + 1} to {last}"
        ends = self.links[last - 1].place if last <= len(self.links) else "its result"
        return f"{which} of {self.steps} of forward (up to {ends})"

    def at(self, x: HostArray) -> list[Array] | None:
        """z₀, …, z_n at x, (rows, d) each; None where the code takes another way there."""
        return self._read(x, None, None)

    def along(self, first: int, last: int, v: Array) -> Array | None:
        """Steps `first` to `last` from the values v of z_first."""
        if first == last:
            return v
        made = self._read(self.case.x if first else v.reshape(self.case.x.shape).astype(self.case.x.dtype), first or None, v)
        return None if made is None else made[last]

    def log_dets(self) -> list[Array]:
        """log|det| of each step at the case's inputs."""
        ctx, found = self.case.ctx, [np.zeros(len(self.case.x))]
        for link in self.links:
            def part(x: Any, *, seed: int | None = None, number: int = link.number) -> Any:
                del seed
                return _run(self.case, x)[0][number][1].reshape(x.shape)

            there = replace(ctx, subject=replace(ctx.subject, forward=part, inverse=None, residual=None, log_det=None))
            found.append(truth_at(there, self.case.x).value)
        found.append(self.case.truth.value)
        return [b - a for a, b in pairwise(found)]

    def _read(self, x: HostArray, put: int | None, v: Array | None) -> list[Array] | None:
        link = None if put is None else self.links[put - 1].number
        with self.case.ctx.guard():
            results, y = _run(self.case, self.case.ctx.native(x), link, v)
        if self.links and len(results) <= self.links[-1].number:
            return None
        rows = [x.reshape(len(x), -1), *(_host(results[k.number][1]) for k in self.links), _host(y)]
        return [np.asarray(r, dtype=np.float64) for r in rows]


def chain(case: Case) -> Chain | None:
    """The chain of forward; None where forward is one step, no torch module's, or cannot be watched."""
    return next(as_far_as_made(_chain(case)), None)


def _chain(case: Case) -> Iterator[Chain | None]:
    if not is_torch_module(case.ctx.subject.module) or case.ctx.framework.name != "torch":
        return
    with case.ctx.guard():
        results, _ = _run(case, case.ctx.native(case.x))
    links, seen = list[Link](), [case.x.reshape(len(case.x), -1), case.y.reshape(len(case.x), -1)]
    turned = np.roll(np.arange(len(case.x)), 1)
    close = 1e6 * case.ctx.u * (1.0 + np.abs(case.y).max())
    for number, (place, value) in enumerate(results[:MANY]):
        z = _host(value)
        if not np.isfinite(z).all() or any(np.array_equal(z, other) for other in seen):
            continue
        with case.ctx.guard():
            _, y = _run(case, case.ctx.native(case.x), number, z[turned])
        if np.abs(_host(y) - case.y.reshape(len(z), -1)[turned]).max() <= close:
            links.append(Link(number, place))
            seen.append(z)
    if len(links) > MOST:
        links = list({k.place: k for k in links}.values())
    yield Chain(case, tuple(links[:MOST])) if links else None


def _run(case: Case, x: Any, number: int | None = None, put: Array | None = None) -> tuple[list[tuple[str, Any]], Any]:
    """((place, result) of as many numbers as x, in order), F(x); with other values put in the place of one."""
    import torch
    from torch.overrides import TorchFunctionMode

    found: list[tuple[str, Any]] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            is_one = isinstance(result, torch.Tensor) and result.is_floating_point() and result.ndim and len(result) == len(x)
            if not is_one or result.numel() != x.numel() or getattr(func, "__name__", "") in ("__get__", "detach", "clone"):
                return result
            place = _place()
            if place is None:
                return result
            if number == len(found):
                assert put is not None
                result = torch.as_tensor(put).to(result).reshape(result.shape)
            found.append((place, result.clone()))
            return result

    with Watch():
        y = case.ctx.caller.event("forward", x, seed=SEED)[0]
    return found, y


def _place() -> str | None:
    """The function and the line of the subject's code that runs; None where none does."""
    frame = inspect.currentframe()
    for _ in range(32):
        if frame is None:
            return None
        if is_own(frame):
            code = frame.f_code
            return f"{getattr(code, 'co_qualname', code.co_name)}, line {frame.f_lineno}"
        frame = frame.f_back
    return None


def _host(value: Any) -> Array:
    return np.asarray(value.detach().cpu().double().numpy().reshape(len(value), -1), dtype=np.float64)


def segments(n: int) -> Iterator[tuple[int, int]]:
    """Every run of some of n steps but not all, the shortest first."""
    for length in range(1, n):
        for first in range(n - length + 1):
            yield first, first + length
