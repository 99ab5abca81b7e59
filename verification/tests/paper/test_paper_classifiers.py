"""Smoke runs of classification.py, hybrid.py and semi_supervised.py of examples/paper, and of what their tables rest on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from examples_of_the_paper import paper

from iresnet_backends import load

for package in ("sklearn", "scipy", "matplotlib", "safetensors", "mlxtend", "PIL"):
    pytest.importorskip(package)

SMALL = ["--width", "16", "--blocks", "1", "--batch", "64"]


@pytest.fixture(scope="module")
def intervals() -> ModuleType:
    return paper("_intervals")


def test_proportions_have_wilsons_interval(intervals: ModuleType) -> None:
    found = intervals.proportion(np.arange(50) < 48)  # (p̂ + z²/2n ± z√(p̂(1−p̂)/n + z²/4n²))/(1 + z²/n), z = 1.959964
    assert np.allclose([found.value, found.low, found.high], [0.96, 0.865400, 0.988955], atol=1e-6)
    assert str(found) == "96.00 % [86.54, 98.90]"


def test_paired_differences_look_at_the_rows_that_differ(intervals: ModuleType) -> None:
    ours, theirs = np.ones(100, bool), np.ones(100, bool)
    ours[:2], theirs[2:10] = False, False  # 8 won, 2 lost
    difference, p = intervals.paired_difference(ours, theirs)
    assert abs(difference.value - 0.06) < 1e-15
    assert abs(p - 2 * 56 / 1024) < 1e-12  # 2 P(at most 2 of 10 heads)
    assert np.allclose([difference.low, difference.high], [0.1 * (2 * 0.443905 - 1), 0.1 * (2 * 0.974793 - 1)], atol=1e-6)
    other, same = intervals.paired_difference(theirs, ours)
    assert np.allclose([other.low, other.high], [-difference.high, -difference.low])
    assert same == p
    assert intervals.paired_difference(ours, ours)[1] == 1.0


# P(X > Y) + P(X = Y)/2 by counting; at 1 the interval is no point; 95 % intervals cover 183 or more of 200 times (P < 2e-2 under .95).
def test_areas_under_the_curve_are_exact_and_their_intervals_cover(intervals: ModuleType) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(6, size=31).astype(float) + 1.0, rng.integers(6, size=17).astype(float)
    truth = np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b))
    found = intervals.area_under_roc(a, b)
    assert abs(found.value - truth) < 1e-12
    assert found.low < truth < found.high
    mirrored = intervals.area_under_roc(b, a)
    assert np.allclose([mirrored.low, mirrored.high], [1.0 - found.high, 1.0 - found.low])
    apart = intervals.area_under_roc(a + 10.0, b)
    assert apart.high == 1.0 == apart.value
    assert 0.8 < apart.low < 0.95
    covered = 0
    for _ in range(200):  # P(X > Y) = Φ(1/√2·√2) for N(1, 1) and N(0, 1): Φ(1/√2) = .7602499
        one = intervals.area_under_roc(rng.standard_normal(40) + 1.0, rng.standard_normal(40))
        covered += one.low <= 0.7602499 <= one.high
    assert covered >= 183


def test_means_have_students_interval(intervals: ModuleType) -> None:
    found = intervals.mean(np.asarray([1.0, 2.0, 3.0]))
    assert np.allclose([found.low, found.high], 2.0 + np.asarray([-1, 1]) * 4.302653 / np.sqrt(3.0), atol=1e-6)


# scipy's spline of order 1 is an independent shift.
def test_shifts_are_scipys() -> None:
    from scipy.ndimage import shift

    shifted = paper("_classifiers").shifted
    x = np.random.default_rng(2).uniform(size=(5, 1, 8, 6))
    moved = shifted(x, 1.7, np.random.default_rng(3))
    by = np.random.default_rng(3).uniform(-1.7, 1.7, (5, 2))
    for one, other, s in zip(x, moved, by, strict=True):
        assert np.allclose(other[0], shift(one[0], -s, order=1, mode="grid-constant"), atol=1e-12)
    assert shifted(x, 0.0, np.random.default_rng(3)) is x


@pytest.mark.thorough
def test_a_short_classification_learns_and_only_ours_inverts(tmp_path: Path) -> None:
    example = paper("classification")
    common = [*SMALL, "--only", "digits", "--folds", "1", "--constants", "0.9", "--folder", str(tmp_path)]
    rows = example.main([*common, "--steps", "40"])
    ours, twin = rows
    assert [ours["network"], twin["network"]] == ["c = 0.9", "unconstrained"]
    assert all(int(row["errors"].split()[0]) < 100 for row in rows)  # of 360; chance leaves 324
    assert 0.0 < ours["proved Lip(g)"] <= 0.9
    assert ours["inverse error"] <= 1e-5
    assert "inverse error" not in twin
    assert json.loads((tmp_path / "classification.json").read_text("utf-8"))["rows"] == rows
    assert (tmp_path / "classification.png").read_bytes().startswith(b"\x89PNG")
    model = load(tmp_path / "models" / "classification.safetensors")
    _, test = next(example.parts("digits", argparse.Namespace(folds=1), 0))
    wrong = int((model(test.x.reshape(-1, 64)).argmax(1) != test.labels).sum())
    assert ours["errors"] == f"{wrong} of 360"


# The same rows, shifts and initial weights on every backend, and for the twin: before c binds they take the same step.
def test_the_twin_and_the_backends_start_alike() -> None:
    example = paper("classification")

    def first(backend: str, c: float | None) -> dict[str, Any]:
        options = argparse.Namespace(steps=1, width=16, blocks=1, batch=32, weight_decay=1e-3, backend=backend, dtype="float64")
        data, _ = next(example.parts("digits", argparse.Namespace(folds=1), 0))
        state = example.train(data, "digits", c, options, 0)
        assert state.normalised.lipschitz == c
        return {k: np.asarray(p) for k, p in state.normalised.parameters().items()}

    ours = first("numpy", 0.9)
    for other in (first("numpy", None), first("torch:cpu", 0.9)):
        assert all(np.allclose(p, other[k], atol=1e-12) for k, p in ours.items())
    assert not all(np.allclose(p, ours[k]) for k, p in first("numpy", 0.5).items())


@pytest.mark.thorough
def test_a_short_hybrid_learns_the_density_it_is_weighted_for(tmp_path: Path) -> None:
    example = paper("hybrid")
    rows, strangers = example.main([*SMALL, "--folder", str(tmp_path), "--weights", "0,1", "--steps", "25", "--learning-rate", "0.02"])
    assert [row["λ"] for row in rows] == [0.0, 1.0]
    assert rows[1]["bits per dimension"] < rows[0]["bits per dimension"] - 0.02  # the density is learnt where λ asks for it
    assert rows[1]["standard error"] < 0.03
    assert rows[1]["proved Lip(g)"] <= 0.9
    areas = {row["images"]: float(row["AUROC of log p"].split()[0]) for row in strangers}
    assert areas["uniform noise"] > 0.99
    assert (tmp_path / "hybrid.png").read_bytes().startswith(b"\x89PNG")
    flow = load(tmp_path / "models" / "hybrid.safetensors")
    _, test = next(example.folds(example.digits(), 5, seed=0))
    x = example.whole(test.x)
    assert np.array_equal(x.min(0) >= 0.0, np.ones(64, bool))
    assert x.max() == 16.0
    bits = -example.log_prob(flow, x, np.zeros(1)).mean() / (64.0 * np.log(2.0))
    assert abs(bits - rows[1]["bits per dimension"]) < 1e-9


@pytest.mark.thorough
def test_a_short_run_with_few_labels_continues_and_reports(tmp_path: Path) -> None:
    example = paper("semi_supervised")
    rows = example.main([*SMALL, "--labels", "2,6", "--draws", "2", "--steps", "12", "--folder", str(tmp_path)])
    found = json.loads((tmp_path / "semi_supervised.json").read_text("utf-8"))["accuracies"]
    assert [row["labels per class"] for row in rows] == [2, 6]
    accuracies = np.asarray([found["2"], found["6"]])  # (labels, draws, networks)
    assert accuracies.shape == (2, 2, 2)
    assert accuracies[1].mean() > max(0.6, accuracies[0].mean())
    assert all(float(row["gain"].split()[0]) == round(100 * (a[:, 1] - a[:, 0]).mean(), 2) for row, a in zip(rows, accuracies, strict=True))
    assert (tmp_path / "semi_supervised.png").read_bytes().startswith(b"\x89PNG")


def test_labels_that_were_not_drawn_are_never_seen() -> None:
    example = paper("semi_supervised")
    data, _ = next(example.folds(example.digits(), 5, seed=0))
    rows = example.labelled(data, 3, 0, 0)
    assert np.array_equal(np.sort(data.labels[rows]), np.repeat(np.arange(10), 3))
    assert len(set(rows.tolist())) == 30
    assert not np.array_equal(rows, example.labelled(data, 3, 1, 0))
    assert set(rows.tolist()) <= set(example.labelled(data, 4, 0, 0).tolist())
    hidden = np.zeros_like(data.labels)
    hidden[rows] = data.labels[rows]
    options = argparse.Namespace(backend="numpy", dtype="float64", seed=0, width=16, blocks=1, batch=32, steps=2,
                                 learning_rate=3e-3, reach=0.5)  # fmt: skip
    one, other = (example.train(d, rows, 1.0, options, "") for d in (data, example.Images(data.x, hidden, data.levels)))
    assert all(np.array_equal(p, other.average[k]) for k, p in one.average.items())
