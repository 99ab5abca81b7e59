"""The log-determinant: its value, its bounds, that of the inverse at the right point, and that all of them are one number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.catalogue.logdet.of_the_inverse import NO_VALUE, SLACK, limit, moved_by_inverse
from iresnet_verify.catalogue.shared.log_det_truth import Truth, decided, is_deterministic, truth_at
from iresnet_verify.catalogue.shared.map_errors import refreshed
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.expectation.bias import compare_expectation
from iresnet_verify.measurements import log_dets as measures
from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.randomness.injection import Vector

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray


@check(
    "logdet.matches-determinant",
    claim="log_det(x) is log|det dF/dx| as claimed: to rounding (exact), within b nats, or in expectation (unbiased).",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), eq. 3; the promise log_det_is", kind="proof", needs=("log_det",),
    statistical=True,
    cost="one Jacobian a row; for random values an enumeration as in estimator.unbiased",
    catches="wrong terms of the series, a truncated series claimed exact, float32 inside float64, a surrogate under the name",
)
def matches_determinant(ctx: Context) -> Outcome:
    """|log_det(x) − log|det J(x)|| ≤ slack + b on every row, J from the oracle."""
    kind, bias = ctx.log_det_claim
    if kind == "gradient-only":
        return Outcome("skipped", NO_VALUE)
    x = ctx.inputs(ctx.rows)
    truth = truth_at(ctx, x)
    if kind == "unbiased" or (kind == "bias" and not is_deterministic(ctx, x[:3])):
        return compare_expectation(ctx, ctx.evaluate_log_det, truth.claim(ctx, bias, min(2, len(x))))
    value = ctx.evaluate_log_det(x, ctx.caller.next_seed())
    return compared(ctx, truth, value, bias)


def compared(ctx: Context, truth: Truth, value: Vector, bias: float) -> Outcome:
    """Compare log-dets with the truth row by row."""
    allowed = truth.slack + bias
    gap = np.where(np.isfinite(value), np.abs(value - truth.value), np.inf)
    known = decided(truth, limit(ctx))
    if not known.any():
        return Outcome("inconclusive", f"the Jacobian oracle ({truth.source}) decides no row: its error is "
                                       f"{np.min(truth.error):.2g} nats", oracle=truth.source)
    ratio = np.where(known, gap / allowed, -1.0)
    worst = int(np.argmax(ratio))
    evidence = {"rows": int(known.sum()), "rows_wrong": int((ratio > 1).sum()), "largest_gap": float(gap[known].max()),
                "worst_value": float(value[worst]), "worst_truth": float(truth.value[worst]),
                "rows_undecided": int((~known).sum())}
    tolerance = f"{allowed[worst]:.2e} in the worst row = {SLACK}" + (f" + b = {bias:g}" if bias else "")
    if ratio[worst] <= 1.0:
        return Outcome("passed", f"largest gap {gap[known].max():.2g} nats in {int(known.sum())} rows", evidence, tolerance,
                       truth.source)
    hint = _hint(ctx, truth, value, worst)
    message = f"expected log_det = {truth.value[worst]:.12g} ± {allowed[worst]:.2g}, got {value[worst]:.12g}{hint}"
    row = truth.x[worst : worst + 1]
    if gap[worst] > 100.0 * math.sqrt(ctx.u) * ctx.d + 2.0 * allowed[worst]:
        counter = Counterexample({"x": row, "allowed": float(max(allowed[worst], gap[worst] / 2.0))},
                                 measures.log_det_by_differences)
    else:
        counter = Counterexample({"x": row, "truth": truth.value[worst : worst + 1], "allowed": allowed[worst : worst + 1]},
                                 measures.log_det_against_truth)
    return Outcome("failed", message, evidence, tolerance, truth.source, counter)


def _hint(ctx: Context, truth: Truth, value: Vector, row: int) -> str:
    """What the value is instead, where it is something well known."""
    J, got, right = truth.jacobian.residual[row], float(value[row]), float(truth.value[row])
    near = 4.0 * float(truth.slack[row]) + 1e-9 * abs(got)
    eye = np.eye(ctx.d)
    known = {"0": 0.0, "minus the log-det": -right, "the log-det divided by d": right / ctx.d,
             "tr(J(I+J)⁻¹), the surrogate": float(np.trace(np.linalg.solve(eye + J, J))),
             "−log det(I − J)": -float(np.linalg.slogdet(eye - J)[1])}
    for name, number in known.items():
        if abs(got - number) <= near:
            return f", which is {name}"
    total, power = 0.0, eye
    for k in range(1, 60):
        power = power @ J
        total += (-1.0) ** (k + 1) * float(np.trace(power)) / k
        if abs(got - total) <= near < abs(right - total):
            return f", which is the series cut after {k} terms"
    single = float(np.float32(right))
    return ", which is right to single precision only" if abs(got - single) <= 1e-5 * max(1.0, abs(right)) else ""


@check(
    "logdet.within-bounds",
    claim="Log-dets are finite, and d·log(1−L) ≤ log det(I + J_g) ≤ d·log(1+L) where Lip(g) ≤ L is claimed; det > 0.",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), Theorem 3 and its proof (eigenvalues of J_g in the disc of radius L)",
    kind="search", needs=("log_det",),
    cost="two batches of log-dets (four where they are random), one Jacobian a row",
    catches="non-finite values, wrong sign or scale, log-dets that contradict the Lipschitz claim",
)
def within_bounds(ctx: Context) -> Outcome:
    """A deterministic log-det is held against the bounds; of a random one the draws are finite and the oracle is held."""
    if ctx.log_det_claim[0] == "gradient-only":
        return Outcome("skipped", NO_VALUE)
    refreshed(ctx)
    x = ctx.inputs(4 * ctx.rows)
    first = ctx.evaluate_log_det(x, 21)
    fixed = all(np.array_equal(first[: ctx.rows], ctx.evaluate_log_det(x[: ctx.rows], s), equal_nan=True) for s in (22, 23))
    values = first[None] if fixed else np.stack([first, *(ctx.evaluate_log_det(x, s) for s in (22, 23))])
    evidence: dict[str, float] = {"rows": len(x), "lowest": float(np.min(values)), "highest": float(np.max(values))}
    if not np.isfinite(values).all():
        bad = x[~np.isfinite(values).all(0)][:1]
        counter = Counterexample({"x": bad, "low": -1e300, "high": 1e300}, measures.log_det_outside_bounds)
        return Outcome("failed", "expected finite log-dets on finite inputs, got NaN or inf", evidence, "none: finiteness",
                       "IEEE arithmetic", counter)
    L = ctx.subject.lipschitz
    if L is None or not 0.0 <= L < 1.0:
        return Outcome("passed", f"all {values.size} values are finite; no Lipschitz bound is claimed", evidence)
    low, high = ctx.d * math.log1p(-L), ctx.d * math.log1p(L)
    truth = truth_at(ctx, x[: ctx.rows])
    bias = ctx.log_det_claim[1] if math.isfinite(ctx.log_det_claim[1]) else 0.0
    slack = 2.0 * float(np.max(truth.slack)) + bias if np.isfinite(truth.slack).all() else math.inf
    signs = np.linalg.slogdet(truth.jacobian.matrix)[0]
    held = values[0] if fixed else truth.value
    outside = np.maximum(low - held, held - high) - slack
    worst = int(np.argmax(outside))
    evidence |= {"lower_bound": low, "upper_bound": high, "negative_determinants": int((signs < 0).sum())}
    tolerance = f"{slack:.2e} = 2·({SLACK})"
    oracle = f"the bounds themselves; sign and random values: {truth.source}"
    if outside[worst] > 0 and fixed:
        counter = Counterexample({"x": x[worst : worst + 1], "low": low - slack, "high": high + slack},
                                 measures.log_det_outside_bounds)
        return Outcome("failed", f"expected a log-det in [{low:.6g}, {high:.6g}] at L = {L:g}, got {held[worst]:.6g}",
                       evidence, tolerance, oracle, counter)
    firm = truth.jacobian.error < 0.5 * singular.smallest(truth.jacobian.matrix)[1]
    if outside[worst] > 0 or (signs[firm] < 0).any():
        i = worst if outside[worst] > 0 else int(np.flatnonzero(firm & (signs < 0))[0])
        return Outcome("failed", f"the Lipschitz claim L = {L:g} implies det > 0 and a log-det in [{low:.6g}, {high:.6g}]; "
                       f"dF/dx has sign {signs[i]:+.0f} and log|det| = {truth.value[i]:.6g}", evidence, tolerance, oracle,
                       Counterexample({"x": x[i : i + 1]}))
    what = "values" if fixed else "true values (draws may leave the bounds)"
    return Outcome("passed", f"{len(held)} {what} within [{low:.4g}, {high:.4g}]", evidence, tolerance, oracle)


@check(
    "logdet.one-value",
    claim="The log-det beside forward's y, log_det(x) and −inverse_log_det(F(x)) are one number wherever several are given.",
    reference="the promises forward, log_det and inverse_log_det of the subject", kind="proof", needs=("log_det",),
    statistical=True,
    cost="one Jacobian a row; for random values an enumeration as in estimator.unbiased",
    catches="two code paths that disagree, a packed log-det with another sign or of another batch",
)
def one_value(ctx: Context) -> Outcome:
    """Deterministic values agree to twice the slack; random ones each have the right expectation."""
    kind, bias = ctx.log_det_claim
    if kind == "gradient-only":
        return Outcome("skipped", NO_VALUE)
    x = ctx.inputs(ctx.rows)

    def packed(rows: HostArray, seed: int) -> Vector:
        beside = ctx.raw_forward(ctx.native(rows), seed=seed)[1]
        return np.asarray(ctx.host(beside), dtype=np.float64).reshape(len(rows))

    has_packed = ctx.subject.log_det is not None and ctx.caller.packed.get("forward", False)
    if not has_packed and ctx.f.inverse_log_det is None:
        value = ctx.evaluate_log_det(x, 31)
        ok = value.shape == (len(x),)
        return Outcome("passed" if ok else "failed", "one log-det is given, one value for each row", {"rows": len(x)})
    with ctx.guard():
        if kind == "unbiased" or not is_deterministic(ctx, x[:3]):
            if not has_packed:
                return Outcome("passed", "random values: each is held against the determinant by its own check", {"rows": 0})
            return compare_expectation(ctx, packed, truth_at(ctx, x[:2]).claim(ctx, bias, 2, "log-det beside y"))
        value, seed = ctx.evaluate_log_det(x, 31), 31
        truth = truth_at(ctx, x)
        found = {"log_det(x)": value}
        extra = np.zeros(len(x))
        if has_packed:
            found["forward(x)[1]"] = packed(x, seed)
        if ctx.f.inverse_log_det is not None:
            y = ctx.f.forward(x)
            found["−inverse_log_det(F(x))"] = -ctx.f.inverse_log_det(y, seed=seed)
            extra = moved_by_inverse(ctx, truth, y)
    allowed = 2.0 * (truth.slack + bias) + extra
    gaps = {name: np.abs(v - value) for name, v in found.items() if name != "log_det(x)"}
    name, gap = max(gaps.items(), key=lambda item: float(np.max(np.nan_to_num(item[1] / allowed, nan=np.inf))))
    ratio = np.nan_to_num(gap / allowed, nan=np.inf)
    worst = int(np.argmax(ratio))
    evidence = {"rows": len(x), "sources": len(found), "largest_gap": float(np.max(gap))}
    tolerance = f"{allowed[worst]:.2e} = 2·({SLACK})"
    if ratio[worst] <= 1.0:
        return Outcome("passed", f"{len(found)} sources agree to {np.max(gap):.2g} nats", evidence, tolerance, "each other")
    return Outcome("failed", f"expected {name} = log_det(x) = {value[worst]:.10g} ± {allowed[worst]:.2g}, got "
                   f"{found[name][worst]:.10g}", evidence, tolerance, "each other", Counterexample({"x": x[worst : worst + 1]}))


@check(
    "logdet.depends-on-input",
    claim="Where the determinant varies with x, so does the log-det.",
    reference="Chen et al. 2019 (arXiv 1906.02735), eq. 2: the log-det is a function of x", kind="proof", needs=("log_det",),
    cost="one Jacobian a row, 2 or 64 evaluations of the log-det",
    catches="constant or cached log-dets, log-dets of the first row for all rows",
)
def depends_on_input(ctx: Context) -> Outcome:
    """Rows whose true log-dets differ by more than 2b + slack do not all get one value, at some seed."""
    kind, bias = ctx.log_det_claim
    x = ctx.inputs(max(4, ctx.rows))
    truth = truth_at(ctx, x)
    spread = float(np.ptp(truth.value))
    needed = 2.0 * (bias if math.isfinite(bias) else 0.0) + 4.0 * float(np.max(truth.slack))
    evidence = {"rows": len(x), "true_spread": spread, "needed_spread": needed}
    if not spread > needed:
        return Outcome("passed", f"nothing to refute: the determinants themselves differ by {spread:.2g} nats at most",
                       evidence, "", truth.source)
    seeds = 64 if kind != "exact" else 2
    constant = sum(bool(np.ptp(ctx.evaluate_log_det(x, s)) == 0.0) for s in range(seeds))
    evidence |= {"seeds": seeds, "seeds_with_one_value": constant}
    if constant == seeds:
        return Outcome("failed", f"expected log-dets that differ by up to {spread:.4g} nats, got one value for all {len(x)} rows "
                       f"at each of {seeds} seeds", evidence, "exact equality of all rows at every seed", truth.source,
                       Counterexample({"x": x, "seeds": seeds}, measures.constant_log_det))
    return Outcome("passed", f"values differ between rows ({spread:.3g} nats between the determinants)", evidence,
                   "exact equality of all rows at every seed", truth.source)
