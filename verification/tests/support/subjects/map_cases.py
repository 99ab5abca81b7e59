"""How the tests of these checks run them, and what every failed result must carry."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from iresnet_verify import Subject, audit
from iresnet_verify.catalogue.convergence import rate, reporting, worst_input
from iresnet_verify.catalogue.inverse import collapse, injectivity, round_trips
from iresnet_verify.catalogue.lipschitz import bound
from iresnet_verify.check.budget import BUDGETS
from iresnet_verify.check.context import Context
from iresnet_verify.check.registry import CATALOGUE
from iresnet_verify.check.result import CheckResult
from iresnet_verify.running.run import Prepared

MODULES = {m.__name__ for m in (rate, reporting, worst_input, collapse, injectivity, round_trips, bound)}
IDS = sorted(c.id for c in CATALOGUE.values() if c.run.__module__ in MODULES)
OF_INVERSE = [i for i in IDS if not i.startswith("lipschitz.")]
OF_BOUND = [i for i in IDS if i.startswith("lipschitz.")] + ["convergence.banach-rate", "inverse.is-injective"]


def results(subject: Subject, ids: Iterable[str], seed: int = 0, budget: str = "quick") -> dict[str, CheckResult]:
    report = audit(subject, seed=seed, budget=budget, select=list(ids))
    return {c.id: c for c in report.checks}


def statuses(found: dict[str, CheckResult], *which: str) -> set[str]:
    return {i for i, c in found.items() if c.status in which}


def accepted(subject: Subject, ids: Iterable[str], seed: int) -> None:
    found = results(subject, ids, seed)
    bad = {i: (c.status, c.message) for i, c in found.items() if c.status in ("failed", "inconclusive", "error")}
    assert not bad, (subject.name, subject.dtype, seed, bad)


def rejected(subject: Subject, ids: Iterable[str], meant: str, also: Iterable[str], seed: int = 0) -> None:
    """Rejected by the check meant for it, by no other than those that must see it too, each with a measured pair or row."""
    found = results(subject, ids, seed)
    failed = statuses(found, "failed")
    assert meant in failed, {i: (c.status, c.message) for i, c in found.items()}
    assert failed <= {meant, *also}, {i: found[i].message for i in failed}
    assert not statuses(found, "error", "inconclusive")
    for name in failed:
        shows_violation(subject, found[name])


def shows_violation(subject: Subject, result: CheckResult) -> None:
    """The counterexample is one row (or one pair), and its measure, compiled from its source alone, is violated."""
    example = result.counterexample
    assert example is not None
    if example.measure is None:
        assert result.id == "lipschitz.survives-parameters"
        return
    names: dict[str, Any] = {"np": np, "math": math, "torch": torch}
    exec(inspect.getsource(example.measure), names)
    prepared = Prepared(subject, 0)
    context = Context(subject, result.id, result.mode, 0, BUDGETS["quick"], 0.0, prepared.framework,
                      prepared.conventions(result.mode))
    with torch.enable_grad():
        value, bound = names[example.measure.__name__](context.f, **example.inputs)
    assert not value <= bound, (result.id, value, bound)
    assert "promised" not in result.evidence or result.evidence["promised"] > 0
    rows = [len(v) for v in example.inputs.values() if isinstance(v, np.ndarray)]
    assert result.id in BATCH_MATTERS or set(rows) == {1}, (result.id, rows)


BATCH_MATTERS = {"inverse.keeps-precision", "inverse.rows-are-independent"}
"""Faults that one row cannot show: a share of entries, rows that decide for others."""
