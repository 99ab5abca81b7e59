"""`iresnet-verify campaign`: run, status, show, report, diff, export. Without a name of one of these it is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click

from iresnet_verify.check.budget import BUDGETS
from iresnet_verify.cli import campaign_progress
from iresnet_verify.cli.option_types import SECONDS
from iresnet_verify.report.exit_codes import FAILED, PASSED, UNUSABLE, joint
from iresnet_verify.report.text import legal, value_text
from iresnet_verify.subject.errors import SubjectError

FOLDER = click.Path(file_okay=False, path_type=Path)
READ = click.Path(exists=True, dir_okay=False, path_type=Path)
SHOWN = 20
"""Failures that the terminal shows; the page has more."""


class RunByDefault(click.Group):
    """A group in which a first word that is no command is an argument of `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` in front where no command is named."""
        if args and args[0] not in self.commands and args[0] not in self.get_help_option_names(ctx):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=RunByDefault)
def campaign() -> None:
    """Many audits: subjects × parameters × seeds, resumed where they stopped.

    `campaign FILE.py:FACTORY --seeds N --folder F` is short for `campaign run …`. PLACE below is the folder of a campaign or its file,
    with @LABEL for another run than the last one.
    """


@campaign.command()
@click.argument("subjects", metavar="CAMPAIGN.toml | FILE.py:FACTORY...", nargs=-1, required=True)
@click.option("--folder", type=FOLDER, help="Where results are kept; with a campaign file it says where, else <file>-results.")
@click.option("--seeds", type=click.IntRange(min=1), help="Seeds of each subject, from --first on.  [default: 10]")
@click.option("--first", type=click.IntRange(min=0), help="The first seed.  [default: 0]")
@click.option("--budget", type=click.Choice(list(BUDGETS)), help="How hard to work.  [default: quick]")
@click.option("--backend", help="Passed on to factories that take backend=.")
@click.option("--select", multiple=True, help="As for audit.")
@click.option("--ignore", multiple=True, help="As for audit.")
@click.option("--check-seconds", type=SECONDS, help="As for audit.")
@click.option("--again", type=click.IntRange(min=0), help="Fresh seeds for a failure that only one seed has shown.  [default: 2]")
@click.option("--label", default="", help="What this run is called in comparisons and trends, such as a version; else when it began.")
@click.option("--workers", type=click.IntRange(min=1), help="Audits at a time on this machine.  [default: 2]")
@click.option("--scheduler", help="Address of a Dask scheduler, or `local`; without it, processes of this machine.")
@click.option("--resources", multiple=True, metavar="NAME=NUMBER", help="What a worker of the cluster must offer, e.g. GPU=1.")
@click.option("--fresh", is_flag=True, help="Audit again what the folder already holds.")
@click.option("--tls-ca", type=READ, help="Certificate authority, for tls://HOST:PORT.")
@click.option("--tls-cert", type=READ, help="This side's certificate.")
@click.option("--tls-key", type=READ, help="Its key.")
@click.option("--insecure", is_flag=True, help="Accept a scheduler on another machine without TLS.")
def run(
    subjects: tuple[str, ...], folder: Path | None, seeds: int | None, first: int | None, budget: str | None, backend: str | None,
    select: tuple[str, ...], ignore: tuple[str, ...], check_seconds: float | None, again: int | None, label: str, workers: int | None,
    scheduler: str | None, resources: tuple[str, ...], fresh: bool, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None,
    insecure: bool,
) -> int:
    """Audit subjects with many seeds, on one machine or a Dask cluster.

    What the folder already holds is not done again, unless the code that the audit loaded has changed, or the packages, Python,
    the machine, this program: it is said which. Audits that came to no verdict are tried again, and a failure that one seed alone has
    shown is looked at with fresh seeds.
    """
    from iresnet_verify.campaign import declaration
    from iresnet_verify.campaign import run as many
    from iresnet_verify.campaign.engines import Engine
    from iresnet_verify.campaign.trust import Trust

    chosen, left_out = ([p for s in option for p in s.split(",") if p] for option in (select, ignore))
    given = {"seeds": seeds, "first": first, "budgets": [budget] if budget else None, "backends": [backend] if backend else None,
             "checks": chosen or None, "ignore": left_out or None, "check_seconds": check_seconds}
    given = {k: v for k, v in given.items() if v is not None}
    files = [s for s in subjects if s.endswith(".toml")]
    if files and len(subjects) > 1:
        raise click.UsageError("expected one campaign file, or subjects FILE.py:FACTORY; name the subjects in the file")
    if files:
        declared = declaration.read(Path(files[0]), given)
    elif folder is None:
        raise click.UsageError("expected --folder, where results are kept; or a campaign file")
    else:
        declared = declaration.Declaration(folder, [u for s in subjects for u in declaration.units_of({**given, "factory": s})])
    settings: dict[str, Any] = {"workers": 2, "again": many.AGAIN, "scheduler": None, **declared.settings,
                **{k: v for k, v in (("workers", workers), ("again", again), ("scheduler", scheduler)) if v is not None}}
    folder = folder or declared.folder
    engine = Engine(settings["workers"], settings["scheduler"], Trust(tls_ca, tls_cert, tls_key, insecure), _resources(resources))
    with campaign_progress.shown(len(declared.units)) as progress:
        options = many.Options(engine, fresh=fresh, again=settings["again"], label=label, progress=progress.step, expect=progress.expect,
                               note=progress.note)
        try:
            found = many.run(declared.units, folder, options)
        except KeyboardInterrupt:
            progress.note(f"interrupted: {progress.done} of {progress.total} audits are kept in {folder}; the same command goes on")
            raise
    for result in found.results:
        if result is not None and not result.complete:
            click.echo(f"no verdict: {legal(result.subject)}, seed {result.seed}: {legal(result.body['problem'])}", err=True)
    click.echo(many.summary(found.results))
    with _run_of(str(folder)) as (store, number):
        _say(store, number)
    return joint([r.exit if r is not None else UNUSABLE for r in found.results])


def _resources(given: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, amount = text.partition("=")
        try:
            found[name] = float(amount)
        except ValueError:
            raise click.UsageError(f"--resources {text}: expected NAME=NUMBER, such as GPU=1") from None
    return found


def _say(store: Any, number: int) -> None:
    from iresnet_verify.campaign import tally as numbers

    t = numbers.tally(store, number)
    found = numbers.failing(t)
    for row, check, cell in found[:SHOWN]:
        click.echo(legal(numbers.failure_line(row, check, cell)))
    if len(found) > SHOWN:
        click.echo(f"and {len(found) - SHOWN} more: iresnet-verify campaign report")
    for text in numbers.sentences(t):
        click.echo(text)


@contextmanager
def _run_of(place: str) -> Iterator[tuple[Any, int]]:
    """The store of PLACE, open, and the number of its run: the last one of that label, else the last one."""
    from iresnet_verify.campaign import declaration
    from iresnet_verify.campaign.store import FILE, Store

    path, at, label = (place, "", "") if Path(place).exists() else place.rpartition("@")
    folder = declaration.folder_of(Path(path if at or not label else label))
    if not (folder / FILE).is_file():
        raise SubjectError(f"{place}: expected a folder with {FILE}, the file of such a campaign, or either with @LABEL; run it first")
    with Store(folder) as store:
        runs = [r for r in store.runs() if not at or r.label == label]
        if not runs:
            known = ", ".join(dict.fromkeys(r.label for r in store.runs())) or "none"
            raise SubjectError(f"{place}: expected a run out of {known}, got {label or 'none'}; name one as PLACE@LABEL")
        yield store, runs[-1].id


@campaign.command()
@click.argument("place")
def status(place: str) -> int:
    """List the runs of a campaign; with its file also what is still to be done, and why."""
    from iresnet_verify.campaign import declaration
    from iresnet_verify.campaign import run as many
    from iresnet_verify.campaign.keys import Present
    from iresnet_verify.campaign.tally import tally

    with _run_of(place) as (store, _):
        for info in store.runs():
            t = tally(store, info.id)
            exits = ", ".join(f"{t.exits[c]} {name}" for c, name in ((0, "passed"), (1, "failed"), (3, "inconclusive")) if c in t.exits)
            rest = f", {len(t.unfinished)} without a verdict" if t.unfinished else ""
            again = f", {t.repeated} again with fresh seeds" if t.repeated else ""
            click.echo(f"{info.label}: {t.audits} of {info.planned} audits: {exits or 'none yet'}{rest}{again}")
        if place.endswith(".toml"):
            units = {u.name(store.folder): u for u in declaration.read(Path(place)).units}
            kept, stale = many.valid(units, store, Present())
            click.echo(f"to be done: {len(units) - len(kept)} of {len(units)}")
            for reason in many.reasons(stale):
                click.echo(reason)
    return PASSED


@campaign.command()
@click.argument("place")
@click.argument("pattern", required=False)
def show(place: str, pattern: str | None) -> int:
    """Show what failed in a run; with a PATTERN of subject or check the evidence, and how to see it again."""
    from iresnet_verify.campaign import tally as numbers

    with _run_of(place) as (store, number):
        if pattern is None:
            _say(store, number)
            return PASSED
        wanted = [(r, c, cell) for r, c, cell in numbers.failing(numbers.tally(store, number))
                  if any(fnmatch(s, f"*{pattern}*") for s in (r.title, r.name, c))]
        if not wanted:
            raise click.UsageError(f"no failure of this run matches {pattern!r}; without a pattern all are shown")
        for row, check, cell in wanted[:SHOWN]:
            click.echo(legal(numbers.failure_line(row, check, cell)))
            for seed, result in cell.examples:
                click.echo(legal(_evidence(store.result(result).body, row.name, check, seed)))
    return PASSED


def _evidence(body: Mapping[str, Any], name: str, check: str, seed: int) -> str:
    from iresnet_verify.campaign.tally import check_in

    c = check_in(body, name, check)
    evidence = "; ".join(f"{k} = {value_text(v)}" for k, v in c["evidence"].items())
    lines = [f"  seed {seed}: {c['message']}", f"    evidence: {evidence}"]
    return "\n".join([*lines, *([f"    reproduce: python {c['reproduce']}"] if c["reproduce"] else [])])


@campaign.command()
@click.argument("place")
@click.option("--html", "path", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Where the page goes.")
def report(place: str, path: Path) -> int:
    """Write one HTML page: subjects × checks, rates, causes, evidence, and how runs compare."""
    from iresnet_verify.campaign import page

    with _run_of(place) as (store, number):
        page.write(store, number, path)
    click.echo(f"written: {path}")
    return PASSED


@campaign.command()
@click.argument("before")
@click.argument("after", required=False)
def diff(before: str, after: str | None) -> int:
    """Say what broke, what was fixed, and what got worse by how much between two runs; of one place, between its last two.

    Exits 1 if something broke or got worse.
    """
    from iresnet_verify.campaign.comparison import compare
    from iresnet_verify.campaign.tally import tally

    with _run_of(after or before) as (store, number):
        now = tally(store, number)
        earlier = [r.id for r in store.runs() if r.id < number]
        if after is None and not earlier:
            raise SubjectError(f"{before}: expected two runs, got one; name another campaign, or run this one again after a change")
        old = tally(store, earlier[-1]) if after is None else None
    if old is None:
        with _run_of(before) as (store, number):
            old = tally(store, number)
    changes = compare(old, now)
    for change in changes:
        click.echo(legal(str(change)))
    click.echo(f"{len(changes)} changes from {old.label} to {now.label}")
    return FAILED if any(c.bad for c in changes) else PASSED


@campaign.command()
@click.argument("place")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
def export(place: str, path: Path) -> int:
    """Write a run as a table, one row a check (PATH ends in .csv or .parquet), or its whole reports (.json)."""
    from iresnet_verify.campaign import export as tables

    with _run_of(place) as (store, number):
        count = tables.write(store, number, path)
    click.echo(f"written: {path}, {count} {'reports' if path.suffix == '.json' else 'rows'}")
    return PASSED


