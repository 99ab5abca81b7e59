"""Audits one after another in a process that stays, and what talks to it.

The process imports what audits need once, frameworks included, and forks a fresh worker for each audit: every audit starts from
the same state and none pays for the imports. Requests and answers are lines of JSON; nothing is unpickled here. Where the system
cannot fork, workers are spawned.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from iresnet_verify.campaign import keys
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.report.exit_codes import exit_code
from iresnet_verify.report.json import document
from iresnet_verify.workers import isolated_audits, warm

TRIES = 3
"""How often an audit is tried whose worker or auditor was killed from outside, or whose code changed meanwhile."""
KILLED = "died of SIGKILL"
CHANGED = "changed while it was audited"
PROGRAM = "from iresnet_verify.campaign.auditor import main; main()"
"""As text: the module that a process was started with (`-m`) is run again, imports included, in each of its forks, .05 s an audit."""
FRAMEWORKS = ("torch", "jax")

Record = dict[str, Any]
Task = Callable[[Unit, Path], Record]
"""What audits a unit and writes reproductions into a folder, as an `Auditor` does."""


def crashed(error: BaseException) -> Record:
    """The record of an audit that was lost with what carried it out."""
    return {"exit": 4, "problem": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "report": None, "key": {}}


def perform(unit: Unit, out: Path, start: str = "spawn", memory: int | None = None) -> Record:
    """Audit once, in workers of this process: {"exit", "problem", "report", "key"}.

    `problem` says why the result is no completed verdict: the subject could not be loaded, a worker ran out of time or died, memory
    ran out, or the code changed meanwhile. It is empty where everything came to its end, and only such results are kept.
    """
    package = keys.package_digest()
    found = isolated_audits.run([replace(unit.job(), memory=memory)], out, workers=1, start=start, watched=True)
    code = found.code[0]
    out_of_memory = [c.id for r in found.reports for c in r.checks if "MemoryError" in c.message]
    if found.errors:
        problem = str(found.errors[0])
    elif found.lost:
        problem = found.lost[0]
    elif out_of_memory:
        problem = f"{out_of_memory[0]}: memory ran out"
    elif code is None:
        problem = "what code was loaded could not be found out"
    elif code.changed:
        problem = f"{Path(code.changed[0]).name} {CHANGED}"
    elif keys.package_digest() != package:
        problem = "the code of iresnet-ref changed during the audit"
    else:
        problem = ""
    return {
        "exit": exit_code(found.reports, found.errors), "problem": problem, "report": document(found.reports, found.errors),
        "key": keys.key_of(unit, code) if code is not None else {},
    }


def retried(found: Record) -> bool:
    """Whether a result is worth another try at once: its worker was killed or its code changed; no subject does that by rights."""
    return KILLED in found["problem"] or found["problem"].endswith(CHANGED)


class Auditor:
    """A process that performs audits. One at a time; it is started when needed, and again if it dies."""

    def __init__(self, memory: int | None = None) -> None:
        self.memory = memory
        """Bytes of address space that a subject may take; None: what is free."""
        self.process: subprocess.Popen[str] | None = None
        self.errors: IO[str] | None = None
        self.frameworks: tuple[str, ...] = ()
        self.closed = False

    def __call__(self, unit: Unit, out: Path) -> Record:
        """Perform an audit; one whose process or worker was killed, or whose code changed, is tried again, `TRIES` times in all."""
        found: Record = {}
        for _ in range(TRIES):
            found = self._once(unit, out)
            if self.closed or not (retried(found) or found.get("died")):
                break
        found.pop("died", None)
        return found

    def _once(self, unit: Unit, out: Path) -> Record:
        try:
            process = self._running(frameworks_of(unit))
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps({"unit": unit.plain(), "out": str(out), "memory": self.memory}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            found: Record = json.loads(line)
        except (OSError, ValueError) as error:
            said = self._last_words()
            self.close(for_good=False)
            return {"exit": 4, "problem": f"the auditing process died: {said or error}", "report": None, "key": {}, "died": True}
        if found["problem"]:
            self.close(for_good=False)  # whatever the subject left running ends with its session
        return found

    def _running(self, frameworks: tuple[str, ...]) -> subprocess.Popen[str]:
        if self.process is not None and self.process.poll() is None and self.frameworks == frameworks:
            return self.process
        self.close(for_good=False)
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  closed with the process
        environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
                       "PYTHONHASHSEED": "0"}  # the order of sets is the same in every audit, wherever it runs
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *frameworks], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors, text=True, encoding="utf-8", env=environment, start_new_session=True)
        self.frameworks = frameworks
        return self.process

    def _last_words(self) -> str:
        if self.process is not None:
            with suppress(subprocess.TimeoutExpired):
                code = self.process.wait(5)
                if code < 0:
                    return f"it {KILLED}" if -code == 9 else f"it died of signal {-code}"
        if self.errors is None:
            return ""
        self.errors.seek(0)
        return (self.errors.read().strip().splitlines() or [""])[-1][-300:]

    def close(self, *, for_good: bool = True) -> None:
        """End the process and all that it started."""
        self.closed = self.closed or for_good
        process, self.process = self.process, None
        if process is not None:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, self.errors):
                with suppress(OSError):
                    if stream is not None:
                        stream.close()


def frameworks_of(unit: Unit) -> tuple[str, ...]:
    """The frameworks that the subject's file imports by name: what is worth importing before the fork."""
    try:
        text = Path(unit.origin.file).read_text("utf-8", "replace")
    except OSError:
        return ()
    return tuple(f for f in FRAMEWORKS if re.search(rf"^\s*(?:import|from)\s+{f}\b", text, re.MULTILINE))


def serve(requests: IO[str], answers: IO[str], frameworks: Sequence[str]) -> None:
    """Answer requests until there are no more, or until this package or what is installed is not what was there at the start: keys are of
    the code that workers have loaded, and they are forks of this process. Ends at once, with all it started, when the other side is gone.
    """
    start = keys.installed()
    fork = "forkserver" in multiprocessing.get_all_start_methods()
    if fork:
        os.environ[warm.PREPARE] = "1"
        multiprocessing.set_forkserver_preload(["iresnet_verify.workers.pool", *frameworks, "iresnet_verify.workers.warm"])
    while line := requests.readline():
        if keys.installed() != start:
            return
        asked = json.loads(line)
        over = threading.Event()
        threading.Thread(target=_end_with_client, args=(requests, over), daemon=True).start()
        found = perform(Unit.read(asked["unit"]), Path(asked["out"]), "forkserver" if fork else "spawn", asked["memory"])
        over.set()
        answers.write(json.dumps(found, allow_nan=False) + "\n")
        answers.flush()


def _end_with_client(requests: IO[str], over: threading.Event) -> None:
    """While an audit runs nothing is asked: a readable pipe means that the client is gone."""
    import select

    while not over.wait(0.5):
        if select.select([requests], [], [], 0)[0] and not over.is_set():
            os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Serve on the standard streams; whatever else prints there goes to standard error."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    serve(requests, answers, sys.argv[1:])
