"""What checks that compare two evaluations share: how to make them, and how far two of them may lie apart.

Two evaluations of the same code at the same x may differ by rounding only (a GEMM of another batch size adds in
another order), so each may be off by the forward tolerance T of `Context.forward_tolerance`: ‖y₁ − y₂‖₂ ≤ 2T.

For log-dets T = K·u·(d + |ℓ|) + min(8·max|ℓ(x(1 ± 4u)) − ℓ(x)|, √u·(d + |ℓ|)) + accuracy·(d + |ℓ|), K = `OPERATIONS`,
the maximum over three patterns of signs. The second term sees the conditioning of ℓ in x; it costs three evaluations and
is added where a row exceeds the others. Rows that exceed 2T even so are given the error bound of the float64 oracle too
(`Context.log_det_truth`), which sees ‖J⁻¹‖.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.subject.conventions import read_conventions
from iresnet_verify.subject.errors import SubjectError, Undecided
from iresnet_verify.subject.frameworks import OPERATIONS, framework_of
from iresnet_verify.subject.module_state import set_mode

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray, Subject

Rows = np.ndarray[Any, np.dtype[np.float64]]
EVENT_NAMES = ("forward", "inverse", "residual")
SCALAR_NAMES = ("log_det", "inverse_log_det", "log_prob", "base_log_prob")
ROUNDING = "2·(64u·(‖x‖+‖y‖+√d) + conditioning): two evaluations, each to rounding"
"""The derivation of what two evaluations of one map may lie apart."""
OF_OUTPUT = ("inverse", "inverse_log_det", "base_log_prob")


@dataclass(frozen=True)
class Values:
    """One evaluation: y (batch, *event) and the log-det (batch,), None where it is not given or random."""

    y: HostArray
    log_det: Rows | None


def warm_up(ctx: Context) -> None:
    """Call forward once, keeping what it changes: layers may initialise themselves from the first batch they see."""
    ctx.raw_forward(ctx.native(ctx.inputs(ctx.rows)))


def evaluate(ctx: Context, x: HostArray, seed: int = 0, log_det: bool = True) -> Values:
    """Evaluate y and, if asked and given, the log-det, with all generators seeded by `seed`."""
    wanted = log_det and ctx.f.log_det is not None
    return Values(ctx.f.forward(x, seed=seed), ctx.evaluate_log_det(x, seed) if wanted else None)


def gap(a: HostArray, b: HostArray) -> Rows:
    """Return ‖a − b‖₂ per row; equal non-finite entries count as equal, others as infinitely apart."""
    if len(a) == 0:
        return np.zeros(0)
    a, b = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, a - b)
    return np.linalg.norm(np.where(np.isfinite(difference), difference, np.inf), axis=1)


def forward_tolerance(ctx: Context, x: HostArray, y: HostArray) -> Rows:
    """Return 2T per row for y; 0 where y is not finite, since non-finite values are equal or infinitely apart (`gap`)."""
    return np.nan_to_num(2.0 * ctx.forward_tolerance(x, y), nan=0.0, posinf=0.0)


def log_det_tolerance(ctx: Context, x: HostArray, value: Rows, apart: Rows, seed: int = 0) -> Rows:
    """Return 2T per row for the log-det, its second term only where `apart` exceeds the others."""
    size = ctx.d + np.abs(np.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0))
    tolerance = 2.0 * (OPERATIONS * ctx.u + ctx.accuracy) * size
    if (apart <= tolerance).all():
        return tolerance
    change = np.zeros(len(x))
    signs = np.random.default_rng(0)
    for _ in range(3):
        step = 4 * ctx.u * signs.choice([-1.0, 1.0], size=x.shape)
        moved = ctx.evaluate_log_det((x.astype(np.float64) * (1 + step)).astype(x.dtype), seed)
        change = np.maximum(change, np.nan_to_num(np.abs(moved - value), nan=0.0, posinf=0.0))
    return tolerance + 2.0 * np.minimum(8 * change, math.sqrt(ctx.u) * size)


def log_det_gap(ctx: Context, x: HostArray, value: Rows, other: Rows) -> tuple[Rows, Rows]:
    """Return (|ℓ₁ − ℓ₂|, tolerance) per row."""
    apart = gap(value, other)
    tolerance = log_det_tolerance(ctx, x, value, apart)
    over = np.flatnonzero(~(apart <= tolerance))
    if len(over):
        with suppress(Undecided):  # then the first tolerance stands
            tolerance[over] += 2.0 * ctx.log_det_truth(x[over])[1]
    return apart, tolerance


def log_det_deterministic(ctx: Context, x: HostArray) -> bool:
    """Whether the log-det is given, has a value that means something, is declared no estimate, and is the same under another seed."""
    if ctx.f.log_det is None or ctx.log_det_claim[0] in ("gradient-only", "none", "unbiased"):
        return False
    a, b = ctx.evaluate_log_det(x, 1), ctx.evaluate_log_det(x, 2)
    apart = gap(a, b)
    return bool((apart <= log_det_tolerance(ctx, x, a, apart, seed=1)).all())


def forward_deterministic(ctx: Context, x: HostArray) -> bool:
    """Whether y is the same under another seed."""
    a = ctx.f.forward(x, seed=1)
    return bool((gap(a, ctx.f.forward(x, seed=2)) <= forward_tolerance(ctx, x, a)).all())


def arguments(ctx: Context, x: HostArray) -> Iterator[tuple[str, HostArray]]:
    """Yield each readable callable that takes an array, with an argument at which it makes sense."""
    y = ctx.f.forward(x, seed=0)
    for name in (*EVENT_NAMES, *SCALAR_NAMES):
        if getattr(ctx.subject, name) is not None and name not in ctx.conventions.broken:
            yield name, (y if name in OF_OUTPUT else x)


def context_of(ctx: Context, subject: Subject) -> Context:
    """Return the context of another subject in the same mode; its other callables may be broken, forward may not."""
    set_mode(subject.module, ctx.mode)
    framework = framework_of(subject)
    found = read_conventions(subject, framework, ctx.seed)
    if "forward" in found.broken:
        raise SubjectError(f"fresh(): {found.broken['forward']}")
    return replace(ctx, subject=subject, framework=framework, conventions=found)


class CallContext:
    """A framework whose calls run in a context manager of our choosing, e.g. under `torch.no_grad()`."""

    def __init__(self, framework: Any, around: Callable[[], Any]) -> None:
        self._framework, self._around = framework, around

    def __getattr__(self, name: str) -> Any:
        return getattr(self._framework, name)

    @contextmanager
    def call_context(self) -> Iterator[None]:
        """The framework's own context, and within it ours."""
        with self._framework.call_context(), self._around():
            yield


def plural(names: list[str]) -> str:
    """Join names for a message."""
    return ", ".join(dict.fromkeys(names))
