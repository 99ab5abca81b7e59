"""A small project to be audited in campaigns, tasks that run nothing, and what results are compared by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iresnet_verify.campaign import keys
from iresnet_verify.campaign.store import Result, Store
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.subject.loading import Origin

AROUND = keys.surroundings()
ONE_CHECK = ("inverse.recovers-input",)
LAYERS = "SLOPE = 1.5\n"
SUBJECT = '''
import dataclasses, os, pathlib, signal, sys, time
import numpy as np
from iresnet_verify import Subject
import layers

HERE = pathlib.Path(__file__).parent
(HERE / "loads.txt").open("a").write("loaded\\n")

def make(forward=lambda x: layers.SLOPE * x, inverse=lambda y: y / layers.SLOPE):
    return Subject(name="scaled", event_shape=(3,), framework="numpy", forward=forward, inverse=inverse)

def factory():
    return make()

def with_data():
    slope = float((HERE / "slope.txt").read_text())
    return make(lambda x: slope * x, lambda y: y / slope)

def imports_late():
    def inverse(y):
        import late
        return y / late.SLOPE
    return make(inverse=inverse)

def killed_once():
    """Says which process to kill and waits for it; once."""
    def inverse(y):
        if not (HERE / "again").exists():
            (HERE / "again").touch()
            (HERE / "pid").write_text(str(os.getpid()))
            time.sleep(60)
        return y / layers.SLOPE
    return make(inverse=inverse)

def slow():
    time.sleep(0.7)
    return make()

def slow_and_named():
    time.sleep(0.7)
    return dataclasses.replace(make(), name=f"scaled by {layers.SLOPE}")

def rewrites_its_import():
    (HERE / "new-layers.py").write_text(f"SLOPE = 1.5  # text of {time.time_ns()}\\n")
    os.replace(HERE / "new-layers.py", HERE / "layers.py")
    return make()

child = False

def forks():
    """A child of the first call in each check returns from it as well, sooner, and with another answer."""
    def inverse(y):
        global child
        if not child and os.fork() == 0:
            child = True
            (HERE / "child").write_text(str(os.getpid()))
        if child:
            return y
        time.sleep(0.2)
        return y / layers.SLOPE
    return make(inverse=inverse)

def allocates():
    def inverse(y):
        held = []
        while True:
            held.append(np.ones(2**22))
    return make(inverse=inverse)
'''


def project(folder: Path) -> Path:
    """Write the project and return the subject's file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "layers.py").write_text(LAYERS)
    (folder / "late.py").write_text(LAYERS)
    (folder / "slope.txt").write_text("1.5")
    (folder / "subject.py").write_text(SUBJECT)
    return folder / "subject.py"


def units(file: Path, count: int, factory: str = "factory", **options: Any) -> list[Unit]:
    """Audits of one check each, with seeds from 0 on."""
    return [Unit(Origin(str(file), factory), seed, "quick", ONE_CHECK, **options) for seed in range(count)]


def answer(unit: Unit, problem: str = "", exit: int = 0) -> dict[str, Any]:
    """A record as an audit would give it, without an audit."""
    report = {"schema": 1, "subject": {"name": unit.origin.factory}, "seed": unit.seed, "status": "passed", "checks": []}
    file = Path(unit.origin.file)
    files = {p.name: keys.digest_of(str(p)) for p in (file, file.with_name("layers.py")) if p.exists()}
    return {"exit": exit, "problem": problem, "report": report, "key": {"files": files, "distributions": {}, **AROUND}}


def timeless(value: Any) -> Any:
    """A report without what differs between two equal runs: seconds, and where reproductions lie."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "cpu_seconds", "reproduce")}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def stored(folder: Path) -> dict[str, Any]:
    """Every verdict in a folder by the name of its audit; fails if one is there twice."""
    found: dict[str, Any] = {}
    with Store(folder) as store:
        for result in store.results():
            if result.complete:
                assert result.unit not in found, "a verdict is stored twice"
                found[result.unit] = timeless(result.body["report"])
    return found


def reports(results: list[Result | None]) -> list[Any]:
    """The reports of results, without times; None where there is no verdict."""
    return [timeless(r.body["report"]) if r is not None and r.complete else None for r in results]
