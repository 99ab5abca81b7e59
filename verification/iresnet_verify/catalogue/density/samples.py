"""Whether samples follow log_prob: an exact symmetry, tested with a bound that holds for every density.

Let x ~ p and let x′ come from x by a Metropolis–Hastings step that leaves p invariant and is reversible. Then (x, x′) and
(x′, x) have the same distribution, so E h(x, x′) = 0 for every antisymmetric h, exactly and whatever p is (Hastings, Biometrika 57,
1970, detailed balance). With |h| ≤ 1 and independent samples Hoeffding's inequality bounds the mean: no normality, no
moments. Samples of another distribution drift towards p, and the sign of what the step changes shows it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.check.outcome import Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context

SAMPLES = {"quick": 4_000, "standard": 4_000, "thorough": 40_000}
NUMBERS = 2**15
"""Numbers in one batch of densities, at most (256 rows at least): a log-det may hold d² of them for each row."""
Vector = np.ndarray[Any, np.dtype[np.float64]]


@check(
    "density.samples-follow-log-prob",
    claim="Samples have the density exp(log_prob): Metropolis–Hastings steps for log_prob leave them in equilibrium, "
    "E[sign(f(x′) − f(x))] = 0.",
    reference="detailed balance (Hastings 1970); Hoeffding 1963 for the mean of bounded variables",
    kind="equivalence", needs=("log_prob", "sample"), statistical=True, modes=False,
    cost="4,000 samples (thorough: 40,000), each with two densities",
    catches="a temperature, samples that were never inverted, another base distribution, a shift, a forgotten log-det",
)
def samples_follow_log_prob(ctx: Context) -> Outcome:
    """Each sample takes a random-walk step (location, dependence) or a scaling step (temperature), chosen by a fair coin.

    The step's centre and scale come from other samples; what it changes is seen in log p and along one direction.
    """
    assert ctx.f.sample is not None
    assert ctx.f.log_prob is not None
    log_prob = ctx.f.log_prob
    n = SAMPLES[ctx.budget.name]
    x = ctx.f.sample(n, seed=ctx.caller.next_seed()).reshape(n, -1).astype(np.float64)
    pilot = ctx.f.sample(256, seed=ctx.caller.next_seed()).reshape(256, -1).astype(np.float64)

    def density(rows: Vector, seed: int = 0) -> Vector:
        shaped = rows.reshape(len(rows), *ctx.subject.event_shape).astype(ctx.subject.dtype)
        parts = np.array_split(shaped, math.ceil(len(rows) / max(256, NUMBERS // ctx.d)))
        return np.concatenate([log_prob(part, seed=seed) for part in parts])

    here = density(x)
    if not (np.isfinite(here).all() and np.isfinite(x).all() and np.isfinite(pilot).all()):
        return Outcome("skipped", "samples or their log_prob are not finite: see density.samples")
    if not np.array_equal(density(x[:8], 1), density(x[:8], 2)):
        return Outcome("skipped", "log_prob is random: the step needs its value")
    centre, spread = pilot.mean(0), np.maximum(pilot.std(0), 1e-12)
    direction = _principal((pilot - centre) / spread) / spread
    walk = x + 1.2 / math.sqrt(ctx.d) * spread * ctx.rng.standard_normal(x.shape)
    factor = np.exp(0.6 / math.sqrt(ctx.d) * ctx.rng.standard_normal(n))
    scaled = centre + factor[:, None] * (x - centre)
    scaling = ctx.rng.uniform(size=n) < 0.5
    there = np.where(scaling[:, None], scaled, walk)
    after = density(there)
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isfinite(after), after - here + scaling * ctx.d * np.log(factor), -np.inf)
    accepted = np.log(ctx.rng.uniform(size=n)) < ratio
    found = {
        "log_prob": float((accepted * np.sign(after - here)).mean()),
        "direction": float((accepted * np.sign((there - x) @ direction)).mean()),
    }
    half_width = math.sqrt(2.0 * math.log(2.0 * len(found) / ctx.alpha) / n)
    return verdict(
        {name: abs(mean) for name, mean in found.items()}, half_width,
        expected="samples in equilibrium under log_prob",
        got=lambda at: f"a drift of {found[at.case]:+.3f} ± {half_width:.3f} ({at.case})",
        remedy=lambda at: _hint(found),
        passed=lambda at: f"in equilibrium: every mean within {at.largest + half_width:.2g} of 0",
        tolerance=f"√(2 ln(2·{len(found)}/α)/n), Hoeffding at this check's share α = {ctx.alpha:.1e}",
        oracle="detailed balance of Metropolis–Hastings for log_prob",
        evidence={"compared": n, "half_width": half_width, **found},
    )


def _principal(z: Vector) -> Vector:
    """The direction of largest spread of whitened samples."""
    return np.linalg.svd(z, full_matrices=False)[2][0]


def _hint(found: dict[str, float]) -> str:
    drift = found["log_prob"]
    if abs(drift) >= abs(found["direction"]):
        return f"samples lie too {'close to the mode' if drift < 0 else 'far out'}: a temperature, a forgotten scale or a wrong base"
    return "a shift: compare sample() with the inverse of base samples"
