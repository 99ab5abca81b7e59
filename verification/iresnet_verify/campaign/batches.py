"""How many audits a worker of a cluster is given at once.

Client and scheduler spend d seconds on whatever they hand out, be it one audit or many. With W workers and batches of B seconds they
are busy for the fraction W·d/B of the time, so

    B = W·d / SHARE

keeps them busy for at most SHARE of it, and a worker waits at most SHARE/W of its own. Audits that take longer than B come one at a time.
No batch is longer than the rest of the campaign over 2·W, so that all workers end together: guided self-scheduling (Polychronopoulos and
Kuck, IEEE Transactions on Computers C-36, 1987). How long an audit takes is the mean of those of the same title so far; one of which
nothing is known is given alone.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path

from iresnet_verify.campaign.unit import Unit

DISPATCH = 0.01
"""Seconds of client and scheduler for each thing handed out: 8.4 ms of CPU time were measured for a task of Dask, and some for a result."""
SHARE = 0.2
MOST = 256
"""Audits in a batch, however short: what a lost worker costs, and what arrives at once."""


class _Mean:
    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, value: float) -> None:
        self.total, self.count = self.total + value, self.count + 1

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else float("inf")


class Batches:
    """The audits that are still to be handed out, in order."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self.left = deque(units)
        self._of_title: dict[str, _Mean] = defaultdict(_Mean)
        self._of_all = _Mean()

    def learn(self, unit: Unit, seconds: float) -> None:
        """An audit took so long on its worker."""
        self._of_title[unit.title].add(seconds)
        self._of_all.add(seconds)

    def take(self, workers: int) -> list[Unit]:
        """The next batch for one of so many workers: at least one audit, and all of files in one folder."""
        longest = min(workers * DISPATCH / SHARE, len(self.left) * self._of_all.value / (2 * workers))
        batch = [self.left.popleft()]
        folder, total = Path(batch[0].origin.file).parent, self._of_title[batch[0].title].value
        while self.left and len(batch) < MOST and Path(self.left[0].origin.file).parent == folder:
            total += self._of_title[self.left[0].title].value
            if total > longest:
                break
            batch.append(self.left.popleft())
        return batch
