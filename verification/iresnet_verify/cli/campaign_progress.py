"""How far a campaign is: a bar with rate and time left on a terminal, a line now and then where there is none. On standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from iresnet_verify.report.text import legal

if TYPE_CHECKING:
    from iresnet_verify.campaign.packed import Packed

FIRST, LINES = 10.0, 30.0
"""Seconds until the first line without a terminal, and between two lines."""
SETTLED = 1.0
"""Seconds after the first result before which no rate is shown: several workers have their first ones together."""


class Counter:
    """Counts audits; `say` shows a line."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.clock = total, clock
        self.done = self.failed = self.found = 0
        self.started = clock()
        self.first = self.started
        """When the first result came: workers have started by then."""

    def step(self, name: str, found: Packed | None) -> None:
        """One audit more has a result."""
        self.done += 1
        self.found += found is not None
        if found is not None and self.found == 1:
            self.first = self.clock()
        self.failed += found is not None and found.exit == 1

    @property
    def line(self) -> str:
        """How many are done, how fast, how long it will take: `120 of 400 audits, 3.1 a second, 1 min 30 s left, 2 failed`."""
        seconds = self.clock() - self.first
        left = ""
        if self.found > 1 and seconds >= SETTLED and self.done < self.total:
            rate = (self.found - 1) / seconds
            speed = f"{rate:.2g} a second" if rate >= 1 else f"{60 * rate:.2g} a minute"
            left = f", {speed}, {_duration((self.total - self.done) / rate)} left"
        return f"{self.done} of {self.total} audits{left}" + (f", {self.failed} failed" if self.failed else "")


class Shown:
    """The progress of a campaign on a console."""

    def __init__(self, counter: Counter, console: Console, bar: Progress | None) -> None:
        self.counter, self.console, self.bar = counter, console, bar
        self.task = bar.add_task(counter.line, total=counter.total) if bar is not None else None
        self.next = counter.started + FIRST

    @property
    def done(self) -> int:
        """Audits that have a result."""
        return self.counter.done

    @property
    def total(self) -> int:
        """Audits of the campaign, looks with fresh seeds included."""
        return self.counter.total

    def step(self, name: str, found: Packed | None) -> None:
        """One audit more has a result."""
        self.counter.step(name, found)
        now = self.counter.clock()
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=self.done, total=self.total, description=self.counter.line)
        elif now >= self.next:
            self.next = now + LINES
            self.note(self.counter.line)

    def expect(self, more: int) -> None:
        """There are more audits than planned: failures are looked at again."""
        self.counter.total += more

    def note(self, text: str) -> None:
        """Say something, beside the bar."""
        self.console.print(legal(text), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def shown(total: int, console: Console | None = None) -> Iterator[Shown]:
    """Show the progress of `total` audits."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield Shown(Counter(total), console, None)
        return
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=console, transient=True) as bar:
        yield Shown(Counter(total), console, bar)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
