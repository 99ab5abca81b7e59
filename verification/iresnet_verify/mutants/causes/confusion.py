"""The examination of the diagnosis: for each seeded mistake the cause that was shown first, and how often it was the right one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from statistics import median

from iresnet_verify.check.finding import UNEXPLAINED
from iresnet_verify.mutants.causes.names import AFTER, CAUSES, NAMELESS, SAME
from iresnet_verify.mutants.causes.undone import UNDONE
from iresnet_verify.mutants.examination import Verdict
from iresnet_verify.statistics.many_tests import clopper_pearson

Row = tuple[str, tuple[str, ...]]
"""The seeded causes joined by " + " (other names of one after " / "), and those shown, the first one first."""
PLUS, OR = " + ", " / "
HEAD = """# What the diagnosis says of known mistakes

{summary}

A row a mistake: its cause in the words of the library (`mutants/causes/names.py`, which the diagnosis does not read), and the causes that
the report shows, the first one first. The page is written by `iresnet-verify mutants [PATTERN] --diagnosis docs/diagnosis.md`, and
for pairs of mistakes with `--pairs`; each replaces the rows of what it runs. Intervals are those of Clopper and Pearson at 95 %.

The mutants of `unseen` (30 November 2026) were written when the hypotheses had been frozen, their causes were written down and committed
before the diagnosis saw them, and their rows are what it showed at first sight, the whole catalogue, budget quick. 33 remake what issue
trackers of published packages report (the address is beside each in the source); 34 are slips drawn at random among the 101 changes of one
operator, number or call in six correct networks that make them wrong. Who wrote them had written hypotheses too, but had not read
these issues before, and did not choose the slips. One more was taken out, since it is no mistake here (a log-det for each component is
added up), and two were declared anew before they were counted, since no check failed on them. Sixteen, twelve of them slips, have a mistake
that no hypothesis has a name for: there "unexplained" is the best that can be shown, and counts as not right.

Of the seven other causes three give the same numbers as the seeded one: the log-det at −x, for a bias with the wrong sign in
1 − tanh²(Wx + c); a parameter multiplied by −1, for a scale that is applied again; a weight that is 0, for a context that is not passed on.
Two are what the seeded one brings about. Two were wrong: a log-det of the inverse that is the one at a wrong preimage, and a line through
the two values that a log-det takes. Since then the diagnosis is silent in four of the seven.

Where a label has a second name, `one-change: …`, that is the change of the code that undoes the seeded one, as written down in
`mutants/causes/undone.py` from the source of the mutant: what the diagnosis shows under this name is right if it begins so, and another
cause if not.

Earlier mutants of this kind, now counted as known, were shown at first sight the right cause in 77 of 90 and another one in 4
(`afterwards`), and the right one in 58 of 78 and another in 3 (`later`; as labelled before three labels were corrected, 55 and 6). The
rows of known mistakes are those of the checks meant for them alone, on another network and seed than tests use (the audits of
`test_no_other_cause_is_shown_first`); two on which nothing fails there count as unexplained. Rows of pairs are of the whole catalogue: 33
of the frozen version, of which 30 show both mistakes (90.9 %, 75.7–98.1), 18 of an earlier one.
"""


def rows_of(verdicts: Iterable[Verdict]) -> dict[str, Row]:
    """Return {mutant: row}; two mistakes seeded together have the id `pairs/…` and both causes."""
    known = CAUSES | import_module("iresnet_verify.mutants.causes.pairs").PAIR_CAUSES
    return {v.id: (OR.join([known.get(v.id, "?"), *UNDONE.get(v.id, ())]), tuple(c.replace("|", "¦") for c in v.causes)) for v in verdicts}


def read(page: str) -> dict[str, Row]:
    """Return the rows of a page that `markdown` wrote."""
    found: dict[str, Row] = {}
    for line in page.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 3 and "/" in cells[0]:
            found[cells[0]] = cells[1], tuple(c for c in cells[2].strip("*").split(PLUS) if c)
    return found


def outcome(row: Row) -> str:
    """"right", "another" or "unexplained", by what is shown first."""
    seeded, shown = row
    first = shown[0] if shown else UNEXPLAINED
    names = seeded.split(OR)
    right = first in names[0].split(SAME) or any(first.startswith(name) for name in names[1:])
    return "right" if right else "unexplained" if first == UNEXPLAINED else "another"


def both(row: Row) -> bool:
    """Whether every mistake of a pair is shown."""
    return set(row[0].split(PLUS)) <= set(row[1])


def summary(found: Sequence[Verdict] | Mapping[str, Row]) -> str:
    """The figures: of mistakes known while the hypotheses were written, of those written afterwards, and of pairs."""
    rows = found if isinstance(found, Mapping) else rows_of(found)
    alone = {id: row for id, row in rows.items() if not id.startswith("pairs/")}
    groups = {"Known while the hypotheses were written": [r for id, r in alone.items() if id not in AFTER],
              "Written afterwards": [r for id, r in alone.items() if id in AFTER]}
    lines = []
    for name, some in groups.items():
        if not some:
            continue
        n = {k: sum(outcome(r) == k for r in some) for k in ("right", "another", "unexplained")}
        figures = ", ".join(f"{words} {share(n[k], len(some))}" for k, words in (
            ("right", "the seeded cause first in"), ("another", "another one in"), ("unexplained", "unexplained in")))
        lines.append(f"- {name} ({len(some)}): {figures}; findings shown for one mistake: median {median(len(r[1]) for r in some):g}.")
        named = [r for r in some if r[0].split(OR)[0] not in NAMELESS or OR in r[0]]
        if len(named) < len(some):
            lines.append(f"  Of the {len(named)} among them whose mistake a hypothesis or a check has a name for, the seeded one first in "
                         f"{share(sum(outcome(r) == 'right' for r in named), len(named))}.")
    pairs = [r for id, r in rows.items() if id.startswith("pairs/")]
    if pairs:
        one = sum(bool(set(r[0].split(PLUS)) & set(r[1])) for r in pairs)
        lines.append(f"- Two mistakes seeded together ({len(pairs)}): both shown in {share(sum(map(both, pairs)), len(pairs))}, one at "
                     f"least in {share(one, len(pairs))}.")
    return "\n".join(lines)


def share(k: int, n: int) -> str:
    """k of n in per cent, with its exact interval at 95 %."""
    low, high = clopper_pearson(k, n)
    return f"{k} = {100 * k / n:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def markdown(verdicts: Sequence[Verdict], page: str = "") -> str:
    """Return the page: these verdicts, and the rows of the earlier `page` for the others."""
    rows = {**read(page), **rows_of(verdicts)}
    rows = {id: rows[id] for id in sorted(rows, key=lambda id: (id.startswith("pairs/"), id in AFTER, id))}
    lines = [HEAD.format(summary=summary(rows))]
    together = [id for id in rows if id.startswith("pairs/")]
    parts = {"Known while the hypotheses were written": [id for id in rows if id not in AFTER and id not in together],
             "Written afterwards": [id for id in rows if id in AFTER], "Two mistakes together": together}
    for title, ids in parts.items():
        if not ids:
            continue
        lines += [f"## {title}", "", "| mistake | seeded | shown |", "|---|---|---|"]
        for id in ids:
            seeded, shown = rows[id]
            good = both(rows[id]) if id.startswith("pairs/") else outcome(rows[id]) == "right"
            text = PLUS.join(shown) or UNEXPLAINED
            lines.append(f"| {id} | {seeded} | {text if good else f'**{text}**'} |")
        lines.append("")
    return "\n".join(lines)
