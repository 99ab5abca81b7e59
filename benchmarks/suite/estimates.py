"""Estimates of log det(I + J) at equal mean-squared error: mean-squared error × CPU time, which no number of repetitions changes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from estimator_tables import BRANCHES, estimate
from timing import Group, Times, in_turn

import iresnet_ref as ir

ROWS = 1000
CASES = ("rand 64-128-64, c = .9", "sym− 64-128-64, c = .7", "ortho 64-64-64, c = .7")
"""Where geometric(½) has a finite variance: ρ(J)² < ½."""
NAIVE = "one Gaussian probe, geometric(½)"


def groups() -> Iterator[Group]:
    """Yield the groups of this file."""
    for case in CASES:
        note = "ms a row for a mean-squared error of 1 nat²; the errors are means over 4,000 draws, which the interval takes as exact"
        yield Group(f"unbiased log det, {case}", NAIVE, partial(at_equal_error, case), note=note)


def at_equal_error(case: str) -> Times:
    """Return times × mean-squared error per row."""
    f = BRANCHES[case]
    x = np.random.default_rng(1).standard_normal(f.branch.event_shape)
    truth = float(ir.logdet(f, x[None], "exact").value[0])
    options = {
        NAIVE: {"lengths": ir.roulette.geometric(0.5, 1), "probes": ir.Probes(seed=1, kind="gaussian"), "exact_traces": 0,
                "allow_infinite_variance": True},
        "default": {"probes": ir.Probes(seed=2)},
        "4 Hadamard probes": {"probes": ir.Probes(seed=2, kind="hadamard", block=4)},
    }  # fmt: skip
    errors = {name: float(np.mean((np.asarray(estimate(f, x, 4 * ROWS, **o).value) - truth) ** 2)) for name, o in options.items()}
    times = in_turn({name: partial(estimate, f, x, ROWS, **o) for name, o in options.items()}, rounds=11)
    return {name: [t / ROWS * errors[name] for t in values] for name, values in times.items()}
