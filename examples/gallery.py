"""The gallery: audit published packages, the reference and two controls, and hold the outcome against what is declared.

Each subject is printed as it ends, and the page grows with it; reproductions are executed beside the audits.
`make audit` runs this; `make gallery` runs it with `--published`, in an environment that has the packages of
docs/gallery.md. It exits 0 exactly when everything is as declared: every failed check is in the subject's
`expected_failures`, every declared failure was found again and its reproduction, executed just now, still shows it,
and no check ended in an error. Inconclusive results are printed and counted; they fail nothing.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import rich.console

from iresnet_backends import available
from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.result import CheckResult
from iresnet_verify.cli.terminal import COLOURS, gallery_table, progress_bar
from iresnet_verify.report import html as report_html
from iresnet_verify.report.json import write as write_json
from iresnet_verify.report.text import overall, seconds_text, verdict
from iresnet_verify.subject.loading import Origin
from iresnet_verify.workers import isolated_audits as isolated
from iresnet_verify.workers import warm
from iresnet_verify.workers.worker import Job

SUBJECTS = Path(__file__).resolve().parent / "subjects"
REPORTS = Path(__file__).resolve().parents[1] / "reports"
GALLERY = (  # longest first, so that no worker is left with a long one at the end
    "normflows_flow.py:subject", "normflows_residual.py:block_64d", "normflows_residual.py:block_2d",
    "zuko_nsf.py:subject", "nflows_coupling.py:spline", "nflows_coupling.py:affine", "normflows_realnvp.py:subject",
    "revtorch_block.py:subject", "plain_resnet.py:subject", "reference_module.py:subject", "reference.py:roulette",
)
PUBLISHED = tuple(
    f"published_{file}.py:{factory}" for file, factories in {
        "torchflows": ("proximal", "deep_sigmoid"), "torchflows_one_way": ("radial", "planar", "sylvester"),
        "enflows": ("shift", "leaky_relu"), "freia": ("scaling", "haar"),
        "others": ("pyro_sylvester", "torchlip_reflect", "torchlip_zeros", "torchlip_sequential", "normflows_other_grid"),
    }.items() for factory in factories
)
"""Objects of packages that only the environment of `make gallery` has: docs/gallery.md."""
IN_PART = {
    "published_torchflows.py:invertible_resnet": "torchflows InvertibleResNetBlock, its own branch",
    "published_torchflows.py:resflow": "torchflows ResFlowBlock, a given branch",
    "published_torchflows.py:autoregressive_spline": "torchflows RQSForwardMaskedAutoregressive",
    "published_freia.py:dense": "FrEIA IResNetLayer, dense", "published_freia.py:convolutional": "FrEIA IResNetLayer, convolutional",
    "published_enflows.py:block": "enflows iResBlock", "published_enflows.py:csin": "enflows DenseNet, csin",
    "published_flowcon.py:block": "flowcon iResBlock",
    "published_flowcon.py:shift": "flowcon MaskedShiftAutoregressiveTransform", "published_flowcon.py:leaky_relu": "flowcon LeakyReLU",
}
"""Those of which only the checks are run that the findings name."""
NOT_FOR_THE_REFERENCE = ("precision", "jax", "array-api-strict:cpu", "array-api-strict:no_")
"""Left out: the 50-digit oracle, JAX (it compiles every operation for every shape), the strict device that hides mistakes of
placement, and those without float64; the laws run on all of them."""
START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
"""How processes start: forked from one that has imported what all of them need, where the system can."""
IMPORTED_ONCE = (
    "__main__", "torch", "sklearn.datasets", "normflows", "nflows.flows", "zuko", "iresnet_verify.workers.worker", warm.__name__,
)
"""What that one imports. Every worker and every reproduction would otherwise pay for it, up to six seconds of CPU time each."""
STILL_WRONG = 1
"""Exit code of a reproduction whose violation is still there."""
SECONDS = 300
"""For a reproduction."""
CHECK_SECONDS = 600.0
"""For a check in one mode: a busy machine must not turn a declared failure into an error."""


def origins(published: bool = False) -> list[Origin]:
    """Every factory of the gallery, and the reference once for each backend that works here; or the published layers.

    The reference on the first backend takes seconds and comes first, so that there is soon something to see.
    """
    specs = (*IN_PART, *PUBLISHED) if published else GALLERY
    fixed = [Origin(str(SUBJECTS / file), factory) for file, factory in (spec.split(":") for spec in specs)]
    if published:
        return fixed
    backends = [name for name in available() if not name.startswith(NOT_FOR_THE_REFERENCE)]
    first, *others = [Origin(str(SUBJECTS / "reference.py"), "subject", backend) for backend in backends]
    return [first, *fixed, *others]


def audit(
    seed: int, budget: str, workers: int, folder: Path, published: bool = False,
    ended: Callable[[AuditResult], None] | None = None,
) -> isolated.Audits:
    """Audit all of them in worker processes, forked from one that has imported torch, where the system can fork."""
    jobs = [Job(origin, seed=seed, budget=budget, select=_select(origin), load_seconds=CHECK_SECONDS, check_seconds=CHECK_SECONDS)
            for origin in origins(published)]
    with progress_bar() as step:
        return isolated.run(jobs, folder, workers=workers, progress=step, start=START, ended=ended)


def _select(origin: Origin) -> tuple[str, ...]:
    name = IN_PART.get(f"{Path(origin.file).name}:{origin.factory}")
    if name is None:
        return ()
    sys.path.insert(0, str(SUBJECTS))
    return tuple(importlib.import_module("_findings").declared(name))


def declared(reports: Sequence[AuditResult]) -> Iterator[tuple[AuditResult, CheckResult]]:
    """The failures that were declared and found."""
    return ((r, c) for r in reports for c in r.checks if c.expected is not None and c.status == "failed")


def reproduce(check: CheckResult) -> str | None:
    """Execute the reproduction of a failed check: None if it still shows the violation, else what is wrong with it."""
    if check.reproduce is None or not Path(check.reproduce).exists():
        return "no reproduction was written"
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said.txt"
        context: Any = multiprocessing.get_context(START)
        process = context.Process(target=execute, args=(check.reproduce, str(said)))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            return f"its reproduction did not end within {SECONDS} s"
        text = said.read_text("utf-8", "replace") if said.exists() else ""
    if process.exitcode == STILL_WRONG and "Traceback" not in text:
        return None
    last = text.strip().splitlines()[-1:] or ["no output"]
    return f"its reproduction exits with {process.exitcode}, not {STILL_WRONG}: {last[0]}"


def execute(script: str, said: str) -> None:
    """What the process of a reproduction does: run the file as a program, its output and its errors in `said`."""
    file = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")


def surprises(report: AuditResult) -> list[str]:
    """Everything of one subject that is not as declared, one sentence each, but for reproductions."""
    found = []
    for c in report.checks:
        if c.status == "error" or c.unexpected:
            what = "declared to fail, but passed" if c.status == "passed" else f"{c.status}: {c.message}"
            found.append(f"{report.subject['name']}: {c.id} {what}")
        elif c.expected is not None and c.status != "failed":
            found.append(f"{report.subject['name']}: {c.id} declared to fail, but {c.status}: {c.message}")
    return found


def replayed(report: AuditResult, check: CheckResult) -> list[str]:
    """Execute the reproduction of a failure of `report` that was declared: what is wrong with it, in one sentence or none."""
    wrong = reproduce(check)
    return [] if wrong is None else [f"{report.subject['name']}: {check.id} failed as declared, but {wrong}"]


class Show:
    """Prints each subject as it ends, rewrites the page with those that have ended, and executes their reproductions, `side` at a time."""

    def __init__(self, console: rich.console.Console, page: Path, side: int) -> None:
        self.console, self.page = console, page
        self.ended: list[AuditResult] = []
        self.wrong: list[Future[list[str]]] = []
        self.pages, self.replays = ThreadPoolExecutor(1), ThreadPoolExecutor(side)

    def __call__(self, report: AuditResult) -> None:
        """Print the line of a subject at once, and leave the rest to threads."""
        shown = overall(report)
        line = f"{shown.glyph} {report.subject['name']}: {verdict(report)} ({seconds_text(report.seconds)})"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True, style=COLOURS[shown.key])
        self.ended.append(report)
        self.wrong += [self.pages.submit(self._written, report, list(self.ended))]
        self.wrong += [self.replays.submit(replayed, report, c) for _, c in declared([report])]

    def _written(self, report: AuditResult, ended: Sequence[AuditResult]) -> list[str]:
        report_html.write(ended, self.page)
        return surprises(report)

    def finish(self) -> list[str]:
        """Wait for the reproductions; everything that was not as declared."""
        found = [sentence for of_one in self.wrong for sentence in of_one.result()]
        self.pages.shutdown()
        self.replays.shutdown()
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit, print, write, reproduce; return the exit code."""
    parser = argparse.ArgumentParser(description="audit the gallery of real subjects")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", choices=("quick", "standard", "thorough"), default="standard")
    parser.add_argument("--published", action="store_true", help="the layers of docs/gallery.md; see make gallery")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args(arguments)
    REPORTS.mkdir(exist_ok=True)
    stem = "published" if chosen.published else "gallery"
    console = rich.console.Console(width=None if sys.stdout.isatty() else 160)
    page = REPORTS / f"{stem}.html"
    report_html.write([], page)
    console.print(f"The page, which grows as subjects end: {page.as_uri()}", soft_wrap=True, highlight=False)
    show = Show(console, page, chosen.workers)
    try:
        audits = audit(chosen.seed, chosen.budget, chosen.workers, REPORTS / f"{stem}-reproduce", chosen.published, show)
    except isolated.Interrupted as stopped:
        report_html.write(stopped.audits.reports, page)
        console.print("interrupted; the page has what was found")
        return 130
    wrong = [str(error) for error in audits.errors] + show.finish()
    write_json(audits.reports, REPORTS / f"{stem}.json")
    report_html.write(audits.reports, page)
    gallery_table(audits.reports, console)
    reasons: dict[tuple[str, str], list[CheckResult]] = {}
    for report, c in declared(audits.reports):
        reasons.setdefault((str(report.subject["name"]), str(c.expected)), []).append(c)
    for (name, reason), checks in reasons.items():
        console.print(f"◆ {name}: {reason}", markup=False, highlight=False)
        for c in checks:
            path = Path(str(c.reproduce))
            console.print(f"    {c.id}  {path.relative_to(REPORTS.parent)}", style="dim", markup=False, highlight=False, soft_wrap=True)
    for report in audits.reports:
        for c in report.checks:
            if c.status == "inconclusive":
                console.print(f"? {report.subject['name']}: {c.id}: {c.message}", markup=False, highlight=False)
    for sentence in wrong:
        console.print(f"✕ {sentence}", style="bold red", markup=False, highlight=False)
    reproduced = sum(1 for _ in declared(audits.reports))
    verdict = f"{len(wrong)} not as declared" if wrong else f"as declared; {reproduced} declared failures reproduced"
    console.print(f"{len(audits.reports)} subjects: {verdict}.", style="bold", highlight=False)
    console.print(f"The page: {page.as_uri()}", soft_wrap=True, highlight=False)
    return 1 if wrong else 0


if __name__ == "__main__":
    if START == "forkserver":
        os.environ[warm.PREPARE] = "1"
        multiprocessing.set_forkserver_preload(list(IMPORTED_ONCE))
    sys.exit(main())
