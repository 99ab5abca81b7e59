"""Two runs of a campaign side by side: what broke, what was fixed, what got worse or better, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

from iresnet_verify.campaign.tally import Cell, Tally, named
from iresnet_verify.report.baseline import GROWTH
from iresnet_verify.report.text import number


@dataclass(frozen=True)
class Change:
    """One check of one subject that is not what it was."""

    kind: str
    """broke, fixed, worse, better, new (it has no result before and fails), gone (it failed and has no result any more)."""
    subject: str
    check: str
    before: Cell | None
    after: Cell | None

    @property
    def bad(self) -> bool:
        """Whether a maintainer should look at it."""
        return self.kind in ("broke", "worse", "new")

    def __str__(self) -> str:
        """One line: kind, subject, check, rates and sizes before and after."""
        cells = (self.before, self.after)
        rates = " → ".join("no result" if c is None or not c.trials else f"{c.failures} of {c.trials} seeds" for c in cells)
        sizes = [c.size for c in cells if c is not None and c.size is not None]
        size = f", size {' → '.join(number(s) for s in sizes)}" if sizes else ""
        factor = f" (×{number(sizes[1] / sizes[0], 3)})" if len(sizes) == 2 and sizes[0] > 0 else ""
        return f"{self.kind}: {self.subject}: {self.check}: {rates}{size}{factor}"


def compare(before: Tally, after: Tally) -> list[Change]:
    """What changed, worst kinds first.

    *Broke*: no seed failed before, one does now. *Fixed*: the reverse, where the check came to a verdict again. *Worse*: the largest
    failure grew more than `GROWTH`-fold (other seeds find other points), or the exact intervals of the rates lie apart. Results that follow
    from another failure are left out.
    """
    old, new = ({(r.title, r.name, c): (r, cell) for r in t.rows for c, cell in r.cells.items()} for t in (before, after))
    found = []
    for key in sorted({*old, *new}):
        row, a = old.get(key, (None, None))
        row_now, b = new.get(key, (row, None))
        kind = _kind(a, b)
        if kind and row_now is not None:
            found.append(Change(kind, named(row_now), key[2], a, b))
    order = ("broke", "new", "worse", "gone", "better", "fixed")
    return sorted(found, key=lambda c: (order.index(c.kind), c.subject, c.check))


def _kind(a: Cell | None, b: Cell | None) -> str:
    failed, fails = bool(a and a.root), bool(b and b.root)
    if fails and not failed:
        return "broke" if a is not None and a.trials else "new"
    if failed and not fails:
        return "fixed" if b is not None and b.trials else "gone"
    if not (failed and fails) or a is None or b is None:
        return ""
    if _larger(b, a):
        return "worse"
    return "better" if _larger(a, b) else ""


def _larger(one: Cell, other: Cell) -> bool:
    """Whether the failure of one is clearly larger or more frequent than that of the other."""
    grown = one.size is not None and other.size is not None and one.size > GROWTH * other.size
    return grown or one.interval[0] > other.interval[1]
