"""One check run again as the audit ran it."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iresnet_verify.report.text import details
from iresnet_verify.running.plan import Planned
from iresnet_verify.running.run import Prepared, run_check
from iresnet_verify.subject.loading import Origin, load


def rerun(
    subject: Path | tuple[Any, ...], *, check: str, mode: str | None, seed: int, budget: str, share: float,
    places: Sequence[str] = (),
) -> int:
    """Re-run one check in one mode as the audit did and print its result; 1: failed, 0: not, 2: it could not run.

    `subject` is (file, factory, index[, backend[, arguments]]), or the path of a subject stored with cloudpickle. The file is looked for
    at `places` first, and in the current folder last.
    """
    from iresnet_verify import catalogue

    if isinstance(subject, tuple):
        file, factory, index, *more = subject
        tried = [*map(Path, places), Path(file), Path(Path(file).name)]
        found = next((p for p in tried if p.is_file()), None)
        if found is None:
            print("the subject's file is at none of", *map(str, tried), "- give its path as the argument", file=sys.stderr)
            return 2
        made = load(Origin(str(found.resolve()), factory, *more), seed)[index]
    else:
        made = pickle.loads(subject.read_bytes())
    result = run_check(Prepared(made, seed), Planned(catalogue.load()[check], (mode,), share), seed=seed, budget=budget)
    print(f"{result.id}: {result.status}")
    print(details(result))
    return {"failed": 1, "error": 2}.get(result.status, 0)
