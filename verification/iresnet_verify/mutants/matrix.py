"""The kill matrix on a terminal: each mutant, the check meant for it that found it, and how many others did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    for name in ("", "mutant", "found by the check meant for it", "and by"):
        table.add_column(name, overflow="fold")
    for v in verdicts:
        meant = [c for c in v.meant if c in v.by]
        others = len(v.by) - len(meant)
        if v.killed:
            table.add_row(Text("✓", "green"), v.id, ", ".join(meant), f"{others} more" if others else "")
        else:
            said = v.problem or f"none of {', '.join(v.meant)}"
            table.add_row(Text("✕", "bold red"), Text(v.id, "bold red"), Text(said, "red"), ", ".join(v.by))
    console.print(table)
    alive = [v for v in verdicts if not v.killed]
    text = f"{len(verdicts) - len(alive)} of {len(verdicts)} mutants killed by a check meant for their mistake"
    console.print(Text(text + (f"; {len(alive)} alive." if alive else "."), "bold red" if alive else "bold green"))


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Return one table for each group of mutants: who killed each, and who saw it too."""
    lines = []
    for group, members in groupby(verdicts, key=lambda v: v.id.split("/")[0]):
        rows = list(members)
        lines += [f"### {group} ({len(rows)})", "", "| mutant | killed by the check meant for it | seen also by |", "|---|---|---|"]
        for v in rows:
            meant, others = ([c for c in v.by if (c in v.meant) == own] for own in (True, False))
            lines.append(f"| {v.id.split('/')[1]} | {', '.join(meant) or '**alive**'} | {', '.join(others)} |")
        lines.append("")
    return "\n".join(lines)


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[Verdict], None]]:
    """A bar on standard error."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("examining", total=total)
        yield lambda verdict: bar.update(task, advance=1, description=f"{verdict.id:<48.48}")
