"""Derivatives far from the data: where the values are finite, so are the derivatives, and they are those of the values.

A branch that is not taken (`torch.where`, a clamp) can overflow while the value is right: 0·∞ in the backward pass is NaN. The value
of such a row says nothing about it, and one row spoils the gradient of every parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import forward_deterministic, log_det_deterministic, warm_up
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import Comparison, verdict
from iresnet_verify.measurements import gradients as measures
from iresnet_verify.oracle import finite_differences as differences
from iresnet_verify.subject.calls import flat
from iresnet_verify.subject.errors import BackwardError, backward_pass

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

SCALES = (0.0, 1e-3, 1e1, 1e2, 1e3, 1e4)
COARSE = 1e-3
"""Relative gap up to which nothing is said: the derivatives near the data are compared to rounding by other checks."""
BESIDE = 2.0**-6
"""Relative distance of a second row: on a kink any slope between both sides may be given, and beside it the derivative is right."""


@check(
    "gradient.far-inputs",
    claim="At the origin and far out, where y and the log-det are finite and have finite differences, their backward passes give these.",
    reference="a derivative is that of the value, whatever branch of the code computed it", kind="search", needs=("torch",),
    cost="for each of 6 rows (quick; else 12 or 24) two backward passes and up to 70 evaluations of one row",
    catches="NaN from the branch of a where that is not taken, overflow in a backward pass alone, roots and norms at 0",
)
def far_inputs(ctx: Context) -> Outcome:
    """Rows of norms 0 to 10⁴·√d one by one, c·∂F and ∂log_det along one direction each, against Richardson differences."""
    if ctx.subject.inputs is not None:
        return Outcome("skipped", "the promises are confined to the subject's own inputs", {"compared": 0})
    warm_up(ctx)
    times = {"quick": 1, "standard": 2, "thorough": 4}[ctx.budget.name]
    x = ctx.rng.standard_normal((len(SCALES) * times, *ctx.subject.event_shape))
    x *= np.reshape(SCALES * times, (-1, *[1] * len(ctx.subject.event_shape)))
    x = x.astype(ctx.inputs(1).dtype)
    named: dict[str, Callable[[Any, int], Any]] = {}
    if forward_deterministic(ctx, ctx.inputs(4)):
        named["y"] = lambda at, seed: ctx.raw_forward(at, seed=seed)[0]
    if log_det_deterministic(ctx, ctx.inputs(4)) and ctx.log_det_claim[0] == "exact":
        named["the log-det"] = lambda at, seed: ctx.raw_log_det(at, seed=seed)[:, None]
    errors: dict[Any, float] = {}
    bounds: dict[Any, float] = {}
    refused: dict[str, str] = {}
    for name, call in named.items():
        for i in range(len(x)):
            try:
                found = _row(ctx, call, x[i : i + 1])
                if found is not None and found[1] < found[0] < np.inf and _is_kink(ctx, call, x[i : i + 1]):
                    found = found[0], np.inf
            except BackwardError as error:
                refused[name] = str(error)  # gradient.forward-input and gradient.log-det say so
                break
            except Exception:  # a row that is refused is no finite one
                continue
            if found is not None:
                errors[name, i], bounds[name, i] = found

    def got(at: Comparison) -> str:
        norm = float(np.linalg.norm(x[at.case[1]].astype(np.float64)))
        what = "NaN or infinity" if not np.isfinite(at.error) else f"a gap of {at.error:.3g}"
        return f"{what} in that of {at.case[0]} at ‖x‖ = {norm:.2g}"

    return verdict(
        errors, bounds,
        expected="the backward pass to give the derivative", got=got,
        remedy="give every branch an argument that it can take, also where it is not chosen",
        passed=f"the derivatives of {' and '.join(named)} are finite and right at {len(errors)} rows of norm 0 to 10⁴·√d",
        nothing="nothing here has a finite derivative and carries a gradient" + "".join(f"; {why}" for why in refused.values()),
        undecided="differences know no derivative there",
        tolerance="10⁻³ of the derivative and 8 errors of the differences", oracle="Richardson differences of the values",
        evidence=refused,
        counterexample=lambda at: Counterexample({"x": x[at.case[1] : at.case[1] + 1]},
                                                 measures.finite_input_gradient if at.case[0] == "y" else None),
    )


def _row(ctx: Context, call: Callable[[Any, int], Any], x: HostArray) -> tuple[float, float] | None:
    """(gap, bound) of c·DF(x)[v]; None where values are not finite or carry no gradient. Infinite where differences know none."""
    import torch

    seed = ctx.caller.next_seed()

    def evaluate(rows: HostArray) -> HostArray:
        return np.concatenate([_value(ctx, call, row, seed) for row in rows.astype(x.dtype).reshape(-1, 1, *ctx.subject.event_shape)])

    v = ctx.rng.standard_normal(flat(x).shape)
    v /= np.linalg.norm(v)
    with ctx.guard(), ctx.framework.call_context():
        leaf = ctx.native(x, requires_grad=True)
        y = call(leaf.clone(), seed)
        if not y.requires_grad or not bool(torch.isfinite(y).all()):
            return None
        c = torch.tensor(ctx.rng.standard_normal(tuple(y.shape))).to(y)
        with backward_pass("a row far out"):
            y.backward(c)
        if leaf.grad is None:
            return None
        along = float((ctx.host(leaf.grad).astype(np.float64).reshape(-1) * v[0]).sum())
        finite = all(bool(torch.isfinite(p.grad).all()) for p in _parameters(ctx) if p.grad is not None)
        weights = flat(ctx.host(c).astype(np.float64))
    slope, error = differences.derivative(evaluate, flat(x).astype(np.float64), v, 8 * ctx.u + ctx.accuracy, ctx.u)
    if not np.isfinite(slope).all():
        return None
    size = float(np.linalg.norm(weights))
    bound = 8.0 * size * float(error[0]) + COARSE * size * (float(np.linalg.norm(slope)) + ctx.u ** 0.5)
    known = float(error[0]) <= 0.1 * (float(np.linalg.norm(slope)) + 1.0)
    gap = abs(along - float((weights * slope).sum()))
    return (gap if np.isfinite(gap) and finite else np.inf), (bound if known else np.inf)


def _is_kink(ctx: Context, call: Callable[[Any, int], Any], x: HostArray) -> bool:
    """Whether the derivative is right beside x: what is wrong on a kink alone is a choice of its slope."""
    beside = x + BESIDE * np.maximum(1.0, np.abs(x)) * ctx.rng.standard_normal(x.shape)
    found = _row(ctx, call, beside.astype(x.dtype))
    return found is not None and found[0] <= found[1]


def _value(ctx: Context, call: Callable[[Any, int], Any], row: HostArray, seed: int) -> HostArray:
    with ctx.guard(), ctx.framework.call_context():
        return flat(np.asarray(ctx.host(call(ctx.native(row), seed)), dtype=np.float64))


def _parameters(ctx: Context) -> list[Any]:
    return [*ctx.subject.module.parameters()] if ctx.subject.module is not None else []
