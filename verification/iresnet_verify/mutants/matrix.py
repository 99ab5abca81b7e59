"""The kill matrix, on a terminal and as a page: each mutant, the checks meant for it that failed, and the others that did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from iresnet_verify.mutants.examination import Verdict


def show(verdicts: Sequence[Verdict], console: Console) -> None:
    """Print one row a mutant, then the count."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for name in ("", "mutant", "killed by the check meant for it", "fails as well"):
        table.add_column(name, overflow="fold")
    for v in verdicts:
        meant = [c for c in v.meant if c in v.by]
        others = len(v.by) - len(meant)
        if v.killed:
            table.add_row(Text("✓", "green"), v.id, ", ".join(meant), f"{others} more" if others else "")
        else:
            reason = v.problem or f"none of {', '.join(v.meant)}"
            table.add_row(Text("✕", "bold red"), Text(v.id, "bold red"), Text(reason, "red"), ", ".join(v.by))
    console.print(table)
    alive = [v for v in verdicts if not v.killed]
    text = f"{len(verdicts) - len(alive)} of {len(verdicts)} mutants killed by a check meant for their mistake"
    console.print(Text(text + (f"; {len(alive)} alive." if alive else "."), "bold red" if alive else "bold green"))


Row = tuple[str, str]
"""The checks meant for a mutant that failed on it, and the other checks that did, each separated by commas."""
ALIVE = "**alive**"
HEAD = """# The kill matrix

{killed} of {known} mutants are killed by a check meant for their mistake. The table is written by
`iresnet-verify mutants [PATTERN] --markdown docs/kill-matrix.md`, which replaces the rows of the mutants that it runs.
"""


def rows_of(page: str) -> dict[str, Row]:
    """Return {mutant: row} of a page that `markdown` wrote."""
    found: dict[str, Row] = {}
    group = ""
    for line in page.splitlines():
        if line.startswith("## "):
            group = line[3:].split(" (")[0]
        elif line.startswith("| ") and not line.startswith("| mutant |"):
            name, meant, others = (cell.strip() for cell in line.strip("|").split("|"))
            found[f"{group}/{name}"] = meant, others
    return found


def markdown(verdicts: Sequence[Verdict], existing: Iterable[str], page: str = "") -> str:
    """Return the page of all `existing` mutants: rows of these verdicts, and for the others those of the earlier `page`."""
    rows = rows_of(page)
    for v in verdicts:
        meant, others = ([c for c in v.by if (c in v.meant) == own] for own in (True, False))
        rows[v.id] = ", ".join(meant) or ALIVE, ", ".join(others)
    known = [id for id in existing if id in rows]
    killed = sum(rows[id][0] != ALIVE for id in known)
    lines = [HEAD.format(killed=killed, known=len(known))]
    for group, members in groupby(known, key=lambda id: id.split("/")[0]):
        ids = list(members)
        lines += [f"## {group} ({len(ids)})", "", "| mutant | killed by the check meant for it | fails as well |", "|---|---|---|"]
        lines += [f"| {id.split('/')[1]} | {rows[id][0]} | {rows[id][1]} |" for id in ids]
        lines.append("")
    return "\n".join(lines)


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[Verdict], None]]:
    """A bar on standard error."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("examining", total=total)
        yield lambda verdict: bar.update(task, advance=1, description=f"{verdict.id:<48.48}")
