"""Measure the error rates that docs/calibration.md states: false alarms, and what bias is found.

    python benchmarks/calibration.py sequences         confidence sequences on correct estimators, skewed and heavy-tailed too
    python benchmarks/calibration.py power             how often a bias of a given size is found, by budget; --picture FILE draws it
    python benchmarks/calibration.py audits --count N  quick audits of correct networks, whole catalogue; --first SEED goes on

Every draw is seeded; equal arguments give equal tables.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from iresnet_verify import audit
from iresnet_verify.check.budget import BUDGETS
from iresnet_verify.mutants import volume
from iresnet_verify.randomness.length_tails import series_sum
from iresnet_verify.statistics import confidence_sequences as sequences

Vector = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
RUNS, DRAWS = 2000, 2000
LOOK = 50
D = 4


@dataclass(frozen=True)
class Estimator:
    """Draws of a correct estimator minus its expectation, and an almost sure bound on them, if there is one."""

    draws: Callable[[np.random.Generator, int], Vector]
    bound: float | None = None


def contraction(L: float, symmetric: bool) -> Vector:
    """A fixed J with ‖J‖₂ = L; its spectral radius is L too where it is symmetric, else about half of it."""
    a = np.random.default_rng(0).standard_normal((D, D))
    a = a + a.T if symmetric else a
    return a * (L / np.linalg.norm(a, 2))


def roulette(L: float, stay: float, signs: bool, symmetric: bool = False, longest: int = 400) -> Estimator:
    """Σ_{k≤N} (−1)^{k+1} vᵀJᵏv/(k P(N ≥ k)) − log det(I + J), N geometric, v signs or normal."""
    J = contraction(L, symmetric)
    truth = float(np.linalg.slogdet(np.eye(D) + J)[1])
    powers = [np.eye(D)]
    for _ in range(longest):
        powers.append(powers[-1] @ J)
    stack = np.stack([(-1.0) ** (k + 1) / (k * stay ** (k - 1)) * powers[k] for k in range(1, longest + 1)])
    partial = np.concatenate([np.zeros((1, D, D)), np.cumsum(stack, axis=0)])

    def draws(rng: np.random.Generator, n: int) -> Vector:
        v = rng.choice([-1.0, 1.0], size=(n, D)) if signs else rng.standard_normal((n, D))
        length = np.minimum(rng.geometric(1 - stay, size=n), longest)
        return np.einsum("ni,nij,nj->n", v, partial[length], v) - truth

    total = series_sum(L, lambda k: stay ** (k - 1), 1) if signs and stay > L else math.inf
    return Estimator(draws, D * total + abs(truth) if math.isfinite(total) else None)


BOUNDED = "roulette, signs, L = .5, geometric(.75)"
ESTIMATORS: dict[str, Estimator] = {
    "uniform": Estimator(lambda rng, n: rng.uniform(-1, 1, n), 1.0),
    "rare large values (1 in 200)": Estimator(lambda rng, n: np.where(rng.uniform(size=n) < 0.005, 9.95, -0.05), 10.0),
    BOUNDED: roulette(0.5, 0.75, signs=True),
    "roulette, normal probes, L = .9, geometric(.9)": roulette(0.9, 0.9, signs=False),
    "log-normal, σ = 1.5": Estimator(lambda rng, n: rng.lognormal(0.0, 1.5, n) - math.exp(1.125)),
    "Student, 3 degrees of freedom": Estimator(lambda rng, n: rng.standard_t(3, n)),
    "roulette, variance infinite: ρ = .97, geometric(.5)": roulette(0.97, 0.5, signs=True, symmetric=True),
}


def excludes(band: sequences.Band) -> bool:
    """Whether the band excluded the truth, 0, after some draw."""
    return bool(((band.low > 0) | (band.high < 0)).any())


def peeking_t(x: Vector, quantile: float) -> bool:
    """Whether a test of the mean, repeated every `LOOK` draws, rejects at some time."""
    t = np.arange(LOOK, len(x) + 1, LOOK)
    mean, square = np.cumsum(x)[t - 1] / t, np.cumsum(x * x)[t - 1] / t
    return bool((np.abs(mean) > quantile * np.sqrt(np.maximum(square - mean**2, 0.0) / (t - 1))).any())


def false_alarms(runs: int = RUNS, draws: int = DRAWS) -> dict[str, dict[str, float]]:
    """{estimator: {column: rate}}; NaN where a sequence does not apply."""
    table: dict[str, dict[str, float]] = {}
    for name, estimator in ESTIMATORS.items():
        rng = np.random.default_rng(1)
        count = dict.fromkeys(("t", "bet .05", "as .05", "bet 1e-6", "as 1e-6", "FAIL"), 0.0)
        for _ in range(runs):
            x = estimator.draws(rng, draws)
            count["t"] += peeking_t(x, 1.96)
            asymptotic = {a: sequences.asymptotic(x, a) for a in (0.05, 1e-6)}
            count["as .05"] += excludes(asymptotic[0.05])
            count["as 1e-6"] += excludes(asymptotic[1e-6])
            if estimator.bound is None:
                count["bet .05"] = count["bet 1e-6"] = math.nan
                count["FAIL"] += excludes(asymptotic[1e-6]) and sequences.may_refute(asymptotic[1e-6], 1e-6)
                continue
            bands = {a: sequences.betting(x, -estimator.bound, estimator.bound, a) for a in (0.05, 1e-6)}
            count["bet .05"] += excludes(bands[0.05])
            count["bet 1e-6"] += excludes(bands[1e-6])
            count["FAIL"] += excludes(bands[1e-6])
        table[name] = {k: v / runs for k, v in count.items()}
    return table


def print_false_alarms() -> None:
    """The table of docs/calibration.md."""
    print(f"{RUNS} runs of {DRAWS} draws; 0 alarms bound a rate by {1 - 0.05 ** (1 / RUNS):.1e} at 95 % confidence\n")
    print("| correct estimator | t-test every 50 draws, 5 % | betting, 5 % | asymptotic, 5 % | betting, 1e-6 | asymptotic, 1e-6 "
          "(suspects only) | reported as failed |\n|---|---|---|---|---|---|---|")
    for name, row in false_alarms().items():
        print(f"| {name} | " + " | ".join("–" if math.isnan(v) else f"{100 * v:.3g} %" for v in row.values()) + " |")


BIASES = np.geomspace(1e-3, 3.0, 36)


def found_by_sampling(budget: str, runs: int) -> tuple[Vector, Vector]:
    """(P(failed), P(passed)) at every bias of `BIASES`: bounded draws, α = 1e-6, the budget's draws and ε."""
    estimator, rng = ESTIMATORS[BOUNDED], np.random.default_rng(2)
    assert estimator.bound is not None
    limits = BUDGETS[budget]
    failed, passed = np.zeros(len(BIASES)), np.zeros(len(BIASES))
    for _ in range(runs):
        x = estimator.draws(rng, limits.samples)
        low, high = sequences.betting(x, -estimator.bound, estimator.bound, 1e-6).last
        verdicts = [sequences.verdict(low + b, high + b, 0.0, D * limits.epsilon_per_dim) for b in BIASES]
        failed += [v == "FAIL" for v in verdicts]
        passed += [v == "PASS" for v in verdicts]
    return failed / runs, passed / runs


def found_by_enumeration() -> list[tuple[float, str]]:
    """(bias, status of estimator.unbiased) of a roulette in d = 4 whose expectation is off by that much."""
    rows = []
    for bias in (0.0, 1e-13, 1e-12, 1e-11, 1e-10, 1e-8, 1e-6, 1e-3):
        made = volume.subject("roulette, numpy signs", d=D, seed=0)
        log_det = made.log_det
        assert log_det is not None
        biased = replace(made, log_det=lambda x, b=bias, f=log_det: f(x) + b)
        (check,) = audit(biased, budget="quick", select=["estimator.unbiased"]).checks
        rows.append((bias, check.status))
    return rows


def print_power(picture: Path | None) -> None:
    """The curves by budget, as a table of the biases found in half and in nearly all runs."""
    runs = {"quick": 400, "standard": 200, "thorough": 40}
    curves = {b: found_by_sampling(b, n) for b, n in runs.items()}
    sd = ESTIMATORS[BOUNDED].draws(np.random.default_rng(3), 200_000).std()
    print(f"Sampling (bounded roulette, d = {D}, standard deviation {sd:.3g} nats, α = 1e-6):\n")
    print("| budget | draws | ε, nats | bias found in half of the runs | in all of them | passes with a bias above ε |")
    print("|---|---|---|---|---|---|")
    for budget, (failed, passed) in curves.items():
        epsilon = D * BUDGETS[budget].epsilon_per_dim
        half, all_of = (next((f"{b:.2g}" for b, f in zip(BIASES, failed, strict=True) if f >= q), "none") for q in (0.5, 1.0))
        wrong = passed[epsilon < BIASES].max(initial=0.0)
        print(f"| {budget} | {BUDGETS[budget].samples:,} | {epsilon:g} | {half} | {all_of} | {wrong:.3g} |")
    print("\nEnumeration (every run alike):\n\n| bias, nats | status |\n|---|---|")
    found = found_by_enumeration()
    for bias, status in found:
        print(f"| {bias:g} | {status} |")
    if picture is not None:
        draw(curves, found, picture)


def draw(curves: dict[str, tuple[Vector, Vector]], found: list[tuple[float, str]], path: Path) -> None:
    """Detection against bias, sampling and enumeration in one picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams["svg.hashsalt"] = "calibration"
    figure, axes = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
    smallest = min((b for b, s in found if s == "failed"), default=1.0)
    axes.step([1e-13, smallest, 3.0], [0, 1, 1], where="post", color="#28713f", lw=2, label="enumeration")
    for (budget, (failed, _)), colour in zip(curves.items(), ("#8a3d8f", "#b4540a", "#1d5a8e"), strict=True):
        axes.plot(BIASES, failed, color=colour, lw=2, label=f"sampling, {budget}: {BUDGETS[budget].samples:,} draws")
    axes.set(xscale="log", xlabel="bias of the estimate, nats", ylabel="found", ylim=(-0.03, 1.03), xlim=(1e-13, 3.0))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(0.33, 0.5))
    figure.savefig(path, dpi=110)


def print_audits(count: int, first: int) -> int:
    """Audit correct networks in turn: what failed, at once, then how many checks each family decided. Returns the alarms."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "verification/tests/support/subjects"))
    from correct_subjects import CORRECT

    tally: dict[str, Counter[str]] = {name: Counter() for name in CORRECT}
    alarms, started = 0, time.process_time()
    for i in range(first, first + count):
        name = list(CORRECT)[i % len(CORRECT)]
        report = audit(CORRECT[name](i), seed=i, budget="quick")
        tally[name].update(["audits", *(c.status for c in report.checks)])
        for c in report.checks:
            if c.status in ("failed", "error"):
                alarms += 1
                print(f"{name}, seed {i}: {c.id} {c.status}: {c.message}", flush=True)
    print("| subject | audits | passed | failed or error | inconclusive | skipped |\n|---|---|---|---|---|---|")
    for name, n in tally.items():
        print(f"| {name} | {n['audits']} | {n['passed']} | {n['failed'] + n['error']} | {n['inconclusive']} | {n['skipped']} |")
    print(f"{count} audits, {alarms} false alarms; the rate per audit is at most {1 - 0.05 ** (1 / count):.2e} at 95 % confidence if there "
          f"is none; {time.process_time() - started:.0f} s of CPU")
    return alarms


def main() -> int:
    """Run one of the three."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", choices=("sequences", "power", "audits"))
    options.add_argument("--picture", type=Path)
    options.add_argument("--count", type=int, default=110)
    options.add_argument("--first", type=int, default=0)
    given = options.parse_args()
    if given.what == "audits":
        return int(print_audits(given.count, given.first) > 0)
    print_false_alarms() if given.what == "sequences" else print_power(given.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
