"""The benchmarks compare equals: identical weights agree, and one round of the smallest group runs."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from places import BENCHMARKS, ROOT

import iresnet_ref as ir

sys.path.insert(0, str(BENCHMARKS))


@pytest.mark.filterwarnings("ignore")
def test_contenders_agree_and_run() -> None:
    from bench_block import TASKS
    from contenders import SHAPES, contenders

    smallest = contenders(next(iter(SHAPES)))
    exact = [np.asarray(work()) for work in TASKS["exact log-det"](smallest).values()]
    block = smallest.numpy
    bound = 2.0 * np.asarray(ir.bounds.logdet_error_bound(block, smallest.x))  # of two that evaluate the same formula
    for other in exact[1:]:
        assert (np.abs(other - exact[0]) <= bound).all()
    for task in ("forward", "inverse"):
        assert all(np.isfinite(np.asarray(work())).all() for work in TASKS[task](smallest).values())


def test_the_calibration_of_the_sequences_is_what_the_docs_say() -> None:
    """A hundredth of the published runs: what is proved raises no alarm at 1e-6, and nothing asymptotic is ever reported."""
    import calibration

    table = calibration.false_alarms(runs=20, draws=600)
    published = (ROOT / "docs/calibration.md").read_text("utf-8")
    for name, row in table.items():
        assert f"| {name} |" in published
        assert row["FAIL"] == 0.0
        assert np.isnan(row["bet 1e-6"]) or row["bet 1e-6"] == 0.0
    assert table["rare large values (1 in 200)"]["as 1e-6"] > 0.5  # why it may only suspect


@pytest.mark.parametrize("name", ["rare large values (1 in 200)", "roulette, signs, L = .5, geometric(.75)"])
def test_the_estimators_of_the_calibration_are_correct_and_bounded(name: str) -> None:
    import calibration

    estimator = calibration.ESTIMATORS[name]
    x = estimator.draws(np.random.default_rng(5), 200_000)
    assert estimator.bound is not None
    assert float(np.abs(x).max()) <= estimator.bound
    assert abs(float(x.mean())) <= 5.0 * float(x.std()) / 200_000**0.5  # false alarm 6e-7


@pytest.mark.parametrize("name", ["Perceptron", "Convolutions"])
def test_the_subjects_of_the_audit_times_are_correct(name: str) -> None:
    import audit_times
    import torch

    torch.manual_seed(0)
    net, event = {"Perceptron": lambda: (audit_times.Perceptron(5, 7), (5,)),
                  "Convolutions": lambda: (audit_times.Convolutions(2, 3, 4), (2, 4, 4))}[name]()
    net.double()
    x = torch.randn(3, *event, dtype=torch.float64)
    d = x[0].numel()
    J = torch.stack([torch.autograd.functional.jacobian(lambda r: net(r[None])[0], row).reshape(d, d) for row in x])
    assert torch.allclose(net.log_det(x), torch.linalg.slogdet(J)[1], rtol=0, atol=1e-12 * d)
    assert bool((torch.linalg.matrix_norm(J - torch.eye(d, dtype=J.dtype), 2) <= audit_times.L).all())
    with torch.no_grad():
        assert float((net.inverse(net(x)) - x).abs().max()) <= 1e-12
