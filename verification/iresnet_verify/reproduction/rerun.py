"""One check run again as the audit ran it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from iresnet_verify.report.text import details
from iresnet_verify.running.plan import Planned
from iresnet_verify.running.run import Prepared, run_check
from iresnet_verify.subject.loading import Origin, load


def rerun(
    subject: Path | tuple[Any, ...], *, check: str, mode: str | None, seed: int, budget: str, share: float
) -> int:
    """Re-run one check in one mode as the audit did and print its result; 1: failed, 0: not, 2: it could not run.

    `subject` is (file, factory, index[, backend[, arguments]]), or the path of a subject stored with cloudpickle.
    """
    from iresnet_verify import catalogue

    if isinstance(subject, tuple):
        file, factory, index, *more = subject
        made = load(Origin(str(Path(file).resolve()), factory, *more), seed)[index]
    else:
        made = pickle.loads(subject.read_bytes())
    result = run_check(Prepared(made, seed), Planned(catalogue.load()[check], (mode,), share), seed=seed, budget=budget)
    print(f"{result.id}: {result.status}")
    print(details(result))
    return {"failed": 1, "error": 2}.get(result.status, 0)
