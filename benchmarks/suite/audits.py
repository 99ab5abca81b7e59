"""The group of audits: what a quick audit costs in evaluations of its subject."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

import audit_times
import torch
from timing import Group, Times, in_turn

from iresnet_verify import audit


def groups() -> Iterator[Group]:
    """Yield the groups of this file."""
    yield Group("quick audit of a torch MLP 64-128-64, both modes", "10,000 evaluations of 256 rows", audits)


def audits() -> Times:
    """Time whole audits in this process, and evaluations."""
    subject = audit_times.mlp()
    net = subject.module
    x = torch.randn(256, 64, dtype=torch.float64)
    with torch.no_grad():
        once = in_turn({"evaluation": lambda: net(x)}, rounds=11)["evaluation"]
    found = []
    for seed in range(3):
        before = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            audit(subject, budget="quick", seed=seed)
        found.append(1e3 * (time.process_time() - before))
    return {"10,000 evaluations of 256 rows": [1e4 * t for t in once], "audit": found}
