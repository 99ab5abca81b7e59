"""The test of the suite: the whole catalogue on every mutant, in worker processes, and which checks killed it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as Expired
from dataclasses import dataclass
from typing import Any

from pebble import ProcessExpired, ProcessPool

from iresnet_verify import mutants
from iresnet_verify.check.finding import Finding
from iresnet_verify.diagnosis.hypothesis import RIGHT_WITH
from iresnet_verify.diagnosis.trials.repairs import REPAIR
from iresnet_verify.mutants.mutant import Mutant

SEED = 1
AND = ", "
"""Between a cause and the change of the code that makes it right."""
SECONDS = 300
"""Time limit of one mutant; one that is stopped by it is alive."""


@dataclass(frozen=True)
class Verdict:
    """`by`: the checks that failed; killed if one of those `meant` for the mistake is among them."""

    id: str
    mistake: str
    meant: tuple[str, ...]
    by: tuple[str, ...]
    seconds: float
    problem: str = ""
    """Why the audit did not end, if it did not."""
    causes: tuple[str, ...] = ()
    """The causes that the diagnosis showed, the first one first."""

    @property
    def killed(self) -> bool:
        """Whether a check meant for the mistake found it."""
        return bool(set(self.meant) & set(self.by))


def examine_one(id: str, *, meant_only: bool = False) -> Verdict:
    """Audit one mutant: the whole catalogue, or the checks meant for it."""
    from iresnet_verify.api import audit

    mutant = (mutants.load_pairs() if id.startswith("pairs/") else mutants.load())[id]
    report = audit(mutant.make(SEED), seed=0, budget="quick", select=mutant.meant if meant_only else None)
    by = dict.fromkeys(c.id for c in report.checks if c.status == "failed")
    return Verdict(id, mutant.mistake, mutant.meant, tuple(by), report.seconds, causes=tuple(map(shown, report.findings)))


def shown(finding: Finding) -> str:
    """The name of the cause; of a change of the code, which one it is as well, and that which the advice names after another cause."""
    repair = finding.wrong.partition(": ")[2].rstrip(".") if finding.cause == REPAIR.name else \
        finding.change.partition(f": {RIGHT_WITH} ")[2].rstrip(".")
    names = [] if finding.cause == REPAIR.name else [finding.cause]
    return AND.join([*names, *([f"{REPAIR.name}: {repair}"] if repair else [])])


def examine(
    ids: Iterable[str], workers: int, progress: Callable[[Verdict], None] = lambda verdict: None
) -> list[Verdict]:
    """Examine them in spawned processes, each with a time limit."""
    table = mutants.load() | mutants.load_pairs()
    found = []
    context: Any = multiprocessing.get_context("spawn")
    with ProcessPool(max_workers=workers, context=context) as pool:
        futures = [(id, pool.schedule(examine_one, args=(id,), timeout=SECONDS)) for id in ids]
        for verdict in _results(futures, table):
            found.append(verdict)
            progress(verdict)
    return found


def _results(futures: Iterable[tuple[str, Any]], table: dict[str, Mutant]) -> Iterator[Verdict]:
    for id, future in futures:
        try:
            yield future.result()
        except (Expired, ProcessExpired, Exception) as error:
            mutant = table[id]
            yield Verdict(id, mutant.mistake, mutant.meant, (), SECONDS, f"{type(error).__name__}: {error}")


def as_json(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Return the kill matrix as JSON, schema 1, with the causes that the diagnosis showed."""
    rows = [{"id": v.id, "mistake": v.mistake, "killed": v.killed, "by": list(v.by), "meant": list(v.meant), "causes": list(v.causes)}
            for v in verdicts]
    return {"schema": 1, "mutants": rows}
