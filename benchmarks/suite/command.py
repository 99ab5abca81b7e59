"""The command line of the suite."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import peers
import record as records
import torch
from page import write
from rich.console import Console
from rich.table import Table
from run_folder import new_folder
from timing import Group, Line, lines

console = Console()


def groups() -> Iterator[Group]:
    """Yield all groups, limits first."""
    import audits
    import blocks
    import estimates
    import limits
    import proofs
    import steps

    for module in (limits, blocks, estimates, proofs, steps, audits):
        yield from module.groups()


def shown(group: Group, found: list[Line]) -> None:
    """Print a group."""
    table = Table("", "ms of CPU", "÷ base", "99 % interval", "", title=group.name, title_justify="left", caption=group.note or None)
    for line in found:
        between = "base" if line.contender == group.base else f"{line.low:.3g}–{line.high:.3g}"
        table.add_row(line.contender, f"{line.median:.4g}", f"{line.ratio:.3g}", between, line.rate)
    console.print(table)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Speed beside what people use."""


@main.command()
@click.option("--only", default="", help="Groups whose name contains this.")
@click.option(
    "--folder",
    default="reports/bench",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the run makes a folder of its own, with bench.json and bench.html.",
)
def run(only: str, folder: Path) -> None:
    """Time every group; both files are whole after each."""
    torch.set_num_threads(1)
    np.empty(2**25 - 2**16, dtype=np.uint8)  # glibc keeps freed memory of this size from now on: nobody pays for new pages
    chosen = [group for group in groups() if only in group.name]
    if not chosen:
        raise click.UsageError(
            f"--only: expected a part of a group's name, got {only!r}; try one of " + "; ".join(g.name for g in groups())
        )
    folder = new_folder(folder)
    begun, record = time.perf_counter(), records.Record(records.machine(), [], {g.name: g.note for g in chosen if g.note}, peers.missing())
    for group in chosen:
        found = lines(group, group.measure())
        record.lines += found
        record.seconds = time.perf_counter() - begun
        records.save(record, folder / "bench.json")
        write(record, folder / "bench.html")
        shown(group, found)
    if record.missing:
        console.print(f"not installed, left out: {', '.join(record.missing)}")
    console.print(f"{record.seconds:.0f} s; written: {folder / 'bench.json'}, {folder / 'bench.html'}")


@main.command()
@click.argument("run", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def table(run: Path) -> None:
    """Print the table of docs/benchmarks.md."""
    record = loaded(run)
    click.echo("| work | | ms of CPU time | ratio | 99 % interval |\n|---|---|---|---|---|")
    for line in record.lines:
        between = "" if line.low == line.high else f"{line.low:.2g}–{line.high:.2g}"
        if line.ratio == math.inf:
            click.echo(f"| {line.group} | {line.contender} | {line.rate} | | |")
            continue
        rate = f", {line.rate}" if line.rate else ""
        click.echo(f"| {line.group} | {line.contender} | {line.median:.3g}{rate} | {line.ratio:.2g} | {between} |")


def loaded(path: Path) -> records.Record:
    """Return the record of a run, or a usage error that says what the file is not."""
    try:
        return records.load(path)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@main.command()
@click.argument("old", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("new", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compare(old: Path, new: Path) -> None:
    """Compare the ratios of two runs; "slower" and "faster" where their 99 % intervals do not meet."""
    lines = Table("group", "", "before", "now", "now ÷ before", "")
    counted = 0
    for change in records.changes(loaded(old), loaded(new)):
        counted += 1
        b, n = change.before, change.now
        lines.add_row(n.group, n.contender, f"{b.ratio:.3g} ({b.low:.3g}–{b.high:.3g})", f"{n.ratio:.3g} ({n.low:.3g}–{n.high:.3g})",
                      f"{n.ratio / b.ratio:.2f}", change.verdict)  # fmt: skip
    if not counted:
        raise click.UsageError(f"expected two runs with a group in common, got none in {old} and {new}; run `make bench` for both")
    console.print(lines)
