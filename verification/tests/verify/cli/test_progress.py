"""An audit in a pipe says how far it is; one that is interrupted writes what it has found."""

from __future__ import annotations

import io
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from odd_reports import REPORT, result
from places import HOSTILE as FILE
from rich.console import Console

from iresnet_verify.check.registry import SLOW
from iresnet_verify.check.result import CheckResult
from iresnet_verify.cli import commands as cli
from iresnet_verify.cli import terminal
from iresnet_verify.report.text import unreadable
from iresnet_verify.workers.isolated_audits import NOT_RUN, Progress

ENOUGH = 2
"""Checks after which the user loses patience."""


def step(done: int, found: CheckResult) -> Progress:
    return Progress("my flow", found, done, 76)


def test_without_a_terminal_progress_is_lines_and_what_fails_is_said_at_once() -> None:
    stream, now = io.StringIO(), [0.0]
    advance = terminal.progress_lines(Console(file=stream, width=80), clock=lambda: now[0])
    advance(step(1, result("hygiene.a")))
    advance(step(2, result("hygiene.b")))
    advance(step(3, result("logdet.c", "failed")))
    now[0] = terminal.LINE_SECONDS + 1
    advance(step(4, result("logdet.d")))
    assert stream.getvalue().splitlines() == [
        "1 of 76 checks, my flow, hygiene.a", "3 of 76 checks, my flow, ✕ logdet.c: failed", "4 of 76 checks, my flow, logdet.d",
    ]


def test_what_makes_a_costly_audit_cheaper_is_said_at_once() -> None:
    slow = replace(result("hygiene.readable"), message="2 answers read; forward takes 0.1 s", evidence={SLOW: 0.1})
    for terminal_ in (False, True):
        stream = io.StringIO()
        with terminal.progress_bar(Console(file=stream, width=100, force_terminal=terminal_)) as advance:
            advance(step(1, slow))
        assert "hygiene.readable" in stream.getvalue() or terminal_
        assert "2 answers read; forward takes 0.1 s" in stream.getvalue()


def test_an_interrupted_audit_writes_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []
    delivered = threading.Event()

    def interrupted(*_: object) -> None:
        delivered.set()
        raise KeyboardInterrupt

    @contextmanager
    def impatient() -> Iterator[Callable[[Progress], None]]:
        def advance(progress: Progress) -> None:
            seen.append(progress.result.id)
            if len(seen) == ENOUGH:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                assert delivered.wait(60)  # on a busy machine the audit would go on until the main thread gets its turn

        yield advance

    monkeypatch.setattr(terminal, "progress_bar", impatient)
    before = signal.signal(signal.SIGINT, interrupted)
    try:
        code = cli.run(["audit", f"{FILE}:good", "--budget", "quick", "--select", "inverse,logdet,hygiene.readable", "--workers", "1",
                        "--json", "a.json", "--html", "a.html", "--write-baseline", "known.json"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == cli.INTERRUPTED
    checks = {c["id"]: c for c in json.loads(Path("a.json").read_text("utf-8"))["checks"]}
    assert {checks[i]["status"] for i in seen[:ENOUGH]} <= {"passed", "skipped"}
    rest = [c for i, c in checks.items() if i not in seen]
    assert len(rest) > len(checks) / 2
    assert {(c["status"], c["message"]) for c in rest} == {("error", NOT_RUN)}
    assert Path("a.html").is_file()
    assert not Path("known.json").exists()
    assert "interrupted" in capfd.readouterr().err


def test_only_a_subject_of_which_nothing_was_read_is_called_unreadable() -> None:
    broken = replace(result("hygiene.readable", "error"), evidence={"unreadable": "forward, inverse"})
    skipped = result("inverse.a", "skipped")
    assert unreadable(replace(REPORT, checks=[broken, skipped])) == broken
    assert unreadable(replace(REPORT, checks=[broken, result("inverse.a")])) is None
    one_mode = replace(broken, evidence={**broken.evidence, "modes": "train: error, eval: passed"})
    assert unreadable(replace(REPORT, checks=[one_mode, skipped])) is None
    only_inverse = replace(broken, evidence={"unreadable": "inverse"})
    assert unreadable(replace(REPORT, checks=[only_inverse, skipped])) is None
