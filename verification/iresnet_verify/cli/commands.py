"""The command line: `audit`, `campaign`, `checks`, `parity`, `doctor`, `mutants`. Their exit codes: `report.exit_codes`."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import click
import cloudpickle  # noqa: F401  what the extra promises is asked for at once, not in the middle of an audit
import jinja2  # noqa: F401
from rich.console import Console

from iresnet_ref.errors import IResNetError
from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.budget import BUDGETS
from iresnet_verify.cli import configuration, terminal
from iresnet_verify.cli.campaign_commands import campaign
from iresnet_verify.cli.option_types import SECONDS, Within
from iresnet_verify.report import baseline as baselines
from iresnet_verify.report import github
from iresnet_verify.report.exit_codes import CRASHED, FAILED, INTERRUPTED, PASSED, UNDECIDED, UNUSABLE, exit_code
from iresnet_verify.report.json import write as write_json
from iresnet_verify.report.junit import write as write_junit
from iresnet_verify.report.names import folder_beside
from iresnet_verify.running.plan import selected
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.loading import parse
from iresnet_verify.workers import isolated_audits
from iresnet_verify.workers.worker import Job

WITHOUT_REPORT = Path("iresnet-verify-reproduce")
"""Where reproductions go if neither --json nor --html nor --out is given."""
FILE = click.Path(dir_okay=False, path_type=Path)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    try:
        return main.main(arguments, prog_name="iresnet-verify", standalone_mode=False) or PASSED
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return UNUSABLE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except IResNetError as error:
        click.echo(f"error: {error}", err=True)
        return UNUSABLE
    except Exception as error:
        return crash(error)


def crash(error: Exception) -> int:
    """Say in one line why this program could not go on; the traceback is shown with IRESNET_VERIFY_TRACEBACK=1."""
    if os.environ.get("IRESNET_VERIFY_TRACEBACK") == "1":
        traceback.print_exception(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    said = " ".join(str(error).split())
    click.echo(f"could not go on: {type(error).__name__}: {said}{place}; IRESNET_VERIFY_TRACEBACK=1 shows the traceback", err=True)
    return CRASHED


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog="Exit codes: 0 nothing failed; "
             "1 a check failed; 2 bad usage or unloadable subject; 3 inconclusive or errored checks, none failed; 4 a crash.")
@click.version_option(package_name="iresnet-ref")
@click.pass_context
def main(context: click.Context) -> None:
    """Audit any invertible network."""
    options = {o[2:]: p.name for p in audit.params if isinstance(p, click.Option) for o in p.opts if o.startswith("--")}
    given = configuration.defaults(Path.cwd(), options.keys() - {"list", "write-baseline"})
    context.default_map = {"audit": {options[key]: value for key, value in given.items()}}


@main.command()
@click.argument("subjects", metavar="FILE.py:FACTORY...", nargs=-1, required=True)
@click.option("--backend", help="Passed on to factories that take backend=, e.g. torch:cuda:0 (see doctor).")
@click.option("--budget", type=click.Choice(list(BUDGETS)), default="standard", show_default=True, help="How hard to work.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Equal seeds, equal audits.")
@click.option("--alpha", type=Within(0, 1, min_open=True, max_open=True), default=1e-6, show_default=True,
              help="Probability that any statistical check fails a correct subject.")
@click.option("--json", "json_path", type=FILE, help="Write the report as JSON.")
@click.option("--html", "html_path", type=FILE, help="Write the report as one HTML page.")
@click.option("--junit", "junit_path", type=FILE, help="Write the report as JUnit XML.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for reproductions; otherwise <stem of the JSON or HTML file>-reproduce next to it.")
@click.option("--select", multiple=True, help="Only these checks: id, family or pattern; repeatable or comma-separated.")
@click.option("--ignore", multiple=True, help="Not these checks.")
@click.option("--baseline", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="JSON of known failures: only new findings fail.")
@click.option("--write-baseline", type=FILE, help="Write what fails now as a baseline, and exit 0 whatever it is.")
@click.option("--list", "list_only", is_flag=True, help="Name the checks that would run, and run none.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Worker processes.")
@click.option("--load-seconds", type=SECONDS, default=300.0, show_default=True,
              help="Time limit for importing the file and calling the factory.")
@click.option("--check-seconds", type=SECONDS, help="Limit of the CPU time of a check in one mode; else the budget's.")
def audit(
    subjects: tuple[str, ...], backend: str | None, budget: str, seed: int, alpha: float, json_path: Path | None,
    html_path: Path | None, junit_path: Path | None, out: Path | None, select: tuple[str, ...],
    ignore: tuple[str, ...], baseline: Path | None, write_baseline: Path | None, list_only: bool, workers: int,
    load_seconds: float, check_seconds: float | None,
) -> int:
    """Audit the subjects that FACTORY() returns, in worker processes: one that hangs or dies costs one check.

    Defaults come from [tool.iresnet-verify] in the nearest pyproject.toml.
    """
    chosen, left_out = (tuple(p for s in option for p in s.split(",") if p) for option in (select, ignore))
    if list_only:
        return _list(chosen, left_out)
    known = baselines.read(baseline) if baseline else {}
    for path in (p for p in (json_path, html_path, junit_path, write_baseline) if p):
        _make_writable(path)
    jobs, errors = [], []
    for spec in subjects:
        try:
            jobs.append(Job(parse(spec, backend), seed, budget, alpha, chosen, left_out, load_seconds, check_seconds))
        except SubjectError as error:
            errors.append(error)
    first = json_path or html_path
    folder = out or (folder_beside(first) if first else WITHOUT_REPORT)
    reports: list[AuditResult] = []
    places: list[github.Place] = []
    interrupted = False
    if jobs:
        try:
            with terminal.progress_bar() as progress:
                audits = isolated_audits.run(jobs, folder, workers=workers, progress=progress)
        except isolated_audits.Interrupted as stopped:
            audits, interrupted = stopped.audits, True
        places = [github.place_of(o.file, o.factory) for o in audits.origins]
        reports, errors = baselines.apply(audits.reports, known, str(baseline)), errors + audits.errors
    terminal.show(reports)
    for fixed in baselines.fixed(reports, known):
        click.echo(f"fixed: {fixed} passes; remove it from {baseline}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        click.echo("\n".join(github.lines(reports, places)))
    _write(reports, errors, json_path, html_path, junit_path)
    for problem in errors:
        click.echo(f"error: {problem}", err=True)
    if interrupted:
        click.echo("interrupted: what was not run counts as an error; no baseline is written", err=True)
        return INTERRUPTED
    if write_baseline:
        baselines.write(reports, write_baseline)
        click.echo(f"written: {write_baseline}")
        return UNUSABLE if errors or not reports else PASSED
    return exit_code(reports, errors)


@main.command()
@click.argument("network", metavar="FILE.py:CLASS")
@click.option("--write", "path", type=FILE, help="Where to; otherwise audit_FILE.py beside it.")
def init(network: str, path: Path | None) -> int:
    """Write a first adapter for a class, an instance, a function without arguments that makes one, or the functions of FILE.py.

    It is written by looking at the object, and tried; what only you can know is left to you as comments.
    """
    from iresnet_verify.api import audit as audit_here
    from iresnet_verify.cli import first_adapter
    from iresnet_verify.subject.loading import load

    written, _ = first_adapter.write(network, path)
    (subject,) = load(parse(f"{written}:make_subject"))
    (read,) = audit_here(subject, budget="quick", select=["hygiene.readable"]).checks
    click.echo(f"written: {written}")
    click.echo("; ".join(f"{k}: {v}" for k, v in read.evidence.items() if isinstance(v, str)) if read.status == "passed" else read.message)
    click.echo(f"now: iresnet-verify audit {written}:make_subject --html report.html")
    return PASSED if read.status == "passed" else UNDECIDED


def _write(
    reports: Sequence[AuditResult], errors: Sequence[SubjectError], json_path: Path | None, html_path: Path | None,
    junit_path: Path | None,
) -> None:
    """Write the reports that were asked for."""
    if json_path:
        write_json(reports, json_path, errors)
    if junit_path:
        write_junit(reports, junit_path, errors)
    if html_path and reports:
        from iresnet_verify.report.html import write as write_html

        write_html(reports, html_path)
    for path in (p for p in (json_path, html_path if reports else None, junit_path) if p):
        click.echo(f"written: {path}")


def _list(chosen: tuple[str, ...], left_out: tuple[str, ...]) -> int:
    """Print the checks that these patterns select, one a line."""
    for found in selected(chosen or None, left_out or None):
        click.echo(found.id)
    return PASSED


def _make_writable(path: Path) -> None:
    """Complain about a report that could not be written before the audit rather than after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        path.open("a").close()
        if not there:
            path.unlink()
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}; choose another place") from None


main.add_command(campaign)


@main.command()
@click.argument("patterns", nargs=-1)
@click.option("--markdown", is_flag=True, help="Print the page docs/checks.md instead of a table.")
@click.option("--write", "page_path", type=FILE, help="Write that page to a file.")
def checks(patterns: tuple[str, ...], markdown: bool, page_path: Path | None) -> None:
    """List the catalogue: what each check claims, how, by what reference, what it costs and what it catches."""
    from iresnet_verify import catalogue
    from iresnet_verify.report import catalogue_page

    found = [c for c in catalogue.load().values() if not patterns or any(c.family == p or fnmatch(c.id, p) for p in patterns)]
    if not found:
        raise click.UsageError(f"no check matches {' '.join(patterns)!r}; `iresnet-verify checks` lists them all")
    if page_path:
        page_path.write_text(catalogue_page.markdown(found), encoding="utf-8")
        click.echo(f"written: {page_path}")
    elif markdown:
        click.echo(catalogue_page.markdown(found), nl=False)
    else:
        terminal.catalogue_table(found)


@main.command()
@click.option("--gpu", is_flag=True, help="Run parity and timing on the GPUs instead; exits 3 where there is none.")
@click.option("--json", "json_path", type=FILE, help="With --gpu: write the page as JSON.")
@click.option("--issue", is_flag=True, help="The same in a few lines of plain text, to paste into an issue.")
def doctor(gpu: bool, json_path: Path | None, issue: bool) -> int:
    """Say which backends, devices, dtypes and extras work here."""
    if gpu:
        from iresnet_verify.machine import gpu_page as page

        kept = page.examine(Console(), json_path)
        return UNDECIDED if kept is None else PASSED if kept else FAILED
    if json_path:
        raise click.UsageError("--json goes with --gpu; try iresnet-verify doctor --gpu --json gpu.json")
    if issue:
        from iresnet_verify.machine.doctor import issue_lines

        click.echo("\n".join(issue_lines()))
        return PASSED
    from iresnet_verify.machine.doctor import examine

    examine(Console())
    return PASSED


@main.command()
@click.argument("backends", nargs=-1)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another network, other inputs.")
@click.option("--json", "json_path", type=FILE, help="Write the table as JSON.")
def parity(backends: tuple[str, ...], seed: int, json_path: Path | None) -> int:
    """Compare BACKENDS (default: all that work here) with the 50-digit run. Exits 1 if an error exceeds its bound."""
    import json

    from iresnet_verify.machine import backend_parity
    from iresnet_verify.machine.gpu_page import parity_table

    found = backend_parity.measure(backends or None, seed)
    Console().print(parity_table(found))
    if json_path:
        json_path.write_text(json.dumps([p.record() for p in found], indent=1), encoding="utf-8")
    return PASSED if all(p.kept for p in found) else FAILED


@main.command()
@click.option("--json", "json_path", type=FILE, help="Write the vectors as JSON.")
@click.option("--npz", "npz_path", type=FILE, help="Write the vectors as NumPy arrays.")
def golden(json_path: Path | None, npz_path: Path | None) -> int:
    """Write the golden vectors: networks with the numbers of a right implementation, for ports in any language."""
    from iresnet_verify.golden import file

    if not json_path and not npz_path:
        raise click.UsageError("expected a file to write, got none; try --json vectors.json")
    if json_path:
        json_path.write_text(file.text(), encoding="utf-8")
    if npz_path:
        file.write_npz(npz_path)
    return PASSED


@main.command()
@click.argument("answers", metavar="ANSWERS.json", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compare(answers: Path) -> int:
    """Compare ANSWERS.json with the golden vectors and say which formula is off. Exits 1 if a number is wrong."""
    from iresnet_verify.golden import comparison

    try:
        found = comparison.compare(comparison.load(answers))
    except comparison.AnswerError as error:
        raise click.UsageError(str(error)) from error
    terminal.golden_table(found)
    return PASSED if all(c.right for c in found) else FAILED


@main.command()
@click.argument("patterns", nargs=-1)
@click.option("--json", "json_path", type=FILE, help="Write the kill matrix as JSON.")
@click.option("--markdown", "markdown_path", type=FILE,
              help="Write the kill matrix as Markdown; rows of other mutants in an existing file are kept.")
@click.option("--diagnosis", "diagnosis_path", type=FILE,
              help="Write which cause was shown first for each mistake, as Markdown; rows of other mutants in an existing file are kept.")
@click.option("--pairs", is_flag=True, help="Examine pairs of mistakes, both of which the diagnosis must show.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Worker processes.")
def mutants(
    patterns: tuple[str, ...], json_path: Path | None, markdown_path: Path | None, diagnosis_path: Path | None, pairs: bool, workers: int,
) -> int:
    """Test the suite itself: does a check meant for it fail on every mutant? Exits 1 if one survives; of pairs, if one hides."""
    from iresnet_verify import mutants as population
    from iresnet_verify.mutants import examination, matrix
    from iresnet_verify.mutants.causes import confusion

    table = population.load_pairs() if pairs else population.load()
    chosen = [m for m in table if not patterns or any(fnmatch(m, f"*{p}*") for p in patterns)]
    if not chosen:
        raise click.UsageError(f"no mutant matches {' '.join(patterns)!r}; without a pattern all are examined")
    written = [path for path in (json_path, markdown_path, diagnosis_path) if path]
    for path in written:
        _make_writable(path)
    with matrix.progress_bar(len(chosen)) as progress:
        verdicts = examination.examine(chosen, workers, progress)
    if not pairs:  # of which the summary says how many show both
        matrix.show(verdicts, Console())
    click.echo(confusion.summary(verdicts))
    if json_path:
        json_path.write_text(json.dumps(examination.as_json(verdicts), indent=1) + "\n", encoding="utf-8")
    if markdown_path:
        page = markdown_path.read_text("utf-8") if markdown_path.exists() else ""
        markdown_path.write_text(matrix.markdown(verdicts, table, page), encoding="utf-8")
    if diagnosis_path:
        page = diagnosis_path.read_text("utf-8") if diagnosis_path.exists() else ""
        diagnosis_path.write_text(confusion.markdown(verdicts, page), encoding="utf-8")
    for path in written:
        click.echo(f"written: {path}")
    good = all(confusion.seen(row) == 2 for row in confusion.rows_of(verdicts).values()) if pairs else all(v.killed for v in verdicts)
    return PASSED if good else FAILED
