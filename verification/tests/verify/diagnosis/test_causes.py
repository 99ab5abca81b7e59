"""One cause, one finding: what cannot be decided names its reason, and what one mistake fails together is folded under one result."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from iresnet_verify import Report, Subject, audit, mutants
from iresnet_verify.cli import terminal
from iresnet_verify.diagnosis.areas import AREAS
from iresnet_verify.diagnosis.behaviours import BEHAVIOURS
from iresnet_verify.diagnosis.diagnose import attribute
from iresnet_verify.mutants.causes import confusion
from iresnet_verify.mutants.causes.names import AFTER, CAUSES
from iresnet_verify.mutants.examination import Verdict, shown
from iresnet_verify.mutants.volume import subject
from iresnet_verify.report import json as report_json
from iresnet_verify.running.plan import selected

D = torch.float64


class Coupling(torch.nn.Module):
    """An affine coupling with dropout in its network: under one mask it is exactly invertible."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 6)).double()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = x.chunk(2, 1)
        s, t = self.net(a).chunk(2, 1)
        return torch.cat([a, b * torch.exp(torch.tanh(s)) + t], 1), torch.tanh(s).sum(1)

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        a, b = y.chunk(2, 1)
        s, t = self.net(a).chunk(2, 1)
        return torch.cat([a, (b - t) * torch.exp(-torch.tanh(s))], 1)


class Scale(torch.nn.Module):
    """A scale with one infinite entry."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor([0.1, -0.2, math.inf], dtype=D))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * self.log_scale.exp(), self.log_scale.sum().expand(len(x))

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        return y * (-self.log_scale).exp()


def barely_over() -> Subject:
    """A layer of norm .98(1 + 1e-7), claimed .98."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 4, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(0.98 * (1 + 1e-7) * torch.linalg.qr(torch.randn(4, 4, dtype=D))[0])
    return Subject(name="barely over", event_shape=(4,), forward=lambda x: x + layer(x), residual=layer, module=layer, lipschitz=0.98)


def findings(report: Report) -> list[str]:
    return [c.id for c in report.checks if c.status == "failed" and c.because_of is None]


def test_a_random_forward_is_the_only_finding_in_its_mode() -> None:
    module = Coupling()
    report = audit(Subject(name="dropout", event_shape=(6,), forward=module, inverse=module.inverse, module=module), 0, "quick")
    assert [c.id for c in report.checks if c.status == "failed"] == ["hygiene.forward-not-random"]
    undecided = [c for c in report.checks if c.because_of is not None]
    assert len(undecided) > 10
    assert {(c.status, c.because_of, c.mode) for c in undecided} == {("inconclusive", "hygiene.forward-not-random", "train")}


# A norm, a frozen parameter and the argument of a call are what they are, however random the values of F.
def test_a_random_forward_hides_no_norm_that_is_too_large() -> None:
    layer = torch.nn.Linear(4, 4, bias=False, dtype=D)
    with torch.no_grad():
        layer.weight.copy_(1.2 * torch.linalg.qr(torch.randn(4, 4, dtype=D))[0])

    def forward(x: torch.Tensor) -> torch.Tensor:
        return x + layer(x) * (1 + 1e-3 * torch.randn_like(x))

    noisy = Subject(name="noisy", event_shape=(4,), forward=forward, module=layer, lipschitz=0.9,
                      linear_maps=lambda: [("layer", layer, (4,), 0.9)])
    report = audit(noisy, 0, "quick", select=["lipschitz", "gradient.frozen-parameters", "hygiene"])
    found = {c.id: c.status for c in report.checks}
    assert found["lipschitz.layers"] == found["hygiene.forward-not-random"] == "failed"
    assert found["gradient.frozen-parameters"] == found["hygiene.input-kept"] == found["hygiene.caller-tensors-kept"] == "passed"
    assert found["hygiene.batch-independence"] == "inconclusive"
    assert [f.cause for f in report.findings] == ["hygiene.forward-not-random", "lipschitz.layers"]


def test_an_infinite_forward_is_the_only_finding() -> None:
    module = Scale()
    report = audit(Subject(name="infinite", event_shape=(3,), forward=module, inverse=module.inverse, module=module), 0, "quick")
    assert [c.id for c in report.checks if c.status == "failed"] == ["hygiene.forward-finite"]


def test_a_graph_that_is_kept_is_named_although_rows_depend_on_each_other() -> None:
    class RunningMean(torch.nn.Module):
        """y = scale·x less a running mean, of which each training step keeps the graph."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(4, dtype=D))
            self.mean: torch.Tensor
            self.register_buffer("mean", torch.zeros(4, dtype=D))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.mean = 0.9 * self.mean + 0.1 * (x * self.scale).mean(0)
            return x * self.scale - self.mean.detach()

    module = RunningMean()
    report = audit(Subject(name="keeps graphs", event_shape=(4,), forward=module, module=module), 0, "quick", select=["hygiene"])
    assert [f.cause for f in report.findings] == ["hygiene.memory", "hygiene.batch-independence"]


def test_a_norm_barely_above_its_claim_is_one_finding_that_says_by_how_much() -> None:
    report = audit(barely_over(), 0, "quick", select=["lipschitz", "convergence", "inverse"])
    assert findings(report) == ["lipschitz.bounds-jacobian"]
    (found,) = [c for c in report.checks if c.id == "lipschitz.bounds-jacobian"]
    assert "9.8e-08 too much" in found.message
    assert re.search(r"multiply to 0\.980000098\d?, the claim is 0\.98:", report.findings[0].wrong)  # not ".98, the claim is .98"
    assert {c.because_of for c in report.checks if c.status == "failed"} == {None, "lipschitz.bounds-jacobian"}


def test_every_check_names_a_mistake_or_compares_a_quantity() -> None:
    ids = {c.id for c in selected()}
    direct = {p for area in AREAS for p in area.primary}
    assert set(BEHAVIOURS) <= ids
    assert direct <= ids
    for id in ids - set(BEHAVIOURS) - {"lipschitz.proved", "inverse.contraction-proved"}:  # which never fail
        assert any(area.holds(id) for area in AREAS), id


def test_the_named_mistakes_are_those_of_mutants() -> None:
    assert set(CAUSES) <= set(mutants.load())
    assert set(CAUSES) >= AFTER


SEEN = (
    "inverse/five-iterations", "inverse/wrong-sign", "inverse/cached", "inverse/bias-forgotten", "inverse/rows-in-reverse-order",
    "batches/median-step-decides", "convolution/norm-of-the-reshaped-kernel", "lipschitz/largest-entry-for-the-norm",
    "lipschitz/selu-taken-for-1-lipschitz", "logdet/per-dimension", "logdet/diagonal-only", "logdet/float32-inside-float64",
    "logdet/bias-larger-than-declared", "gradient/mean-weight-for-all", "gradient/last-step-of-the-inverse-alone",
    "density/log-det-forgotten", "density/bits-per-dimension-off-by-log-2",
)


@pytest.mark.parametrize("id", SEEN)
def test_the_first_cause_is_the_seeded_one(id: str) -> None:
    mutant = mutants.load()[id]
    report = audit(mutant.make(2), 0, "quick", select=mutant.meant)
    assert [f.cause for f in report.findings] == [CAUSES[id]]
    assert len(findings(report)) == 1


@pytest.mark.parametrize(
    ("id", "words"),
    [("logdet/series-claimed-exact", "the series cut after 6 terms"), ("logdet/surrogate-under-the-log-det-s-name", "tr(J(I + J)⁻¹)"),
     ("logdet/of-the-inverse-at-y", "at y, not at x = F⁻¹(y)"), ("gradient/detached", "is 0"), ("gradient/divided-by-the-batch", "1/4"),
     ("inverse/old-weights", "`last multiplied by 1.11111`"), ("estimator/third-term-dropped", "term 3"),
     ("gradient/a-parameter-counted-again-in-the-backward-pass", "`shift`")],
)
def test_the_sentence_says_what_the_numbers_are_instead(id: str, words: str) -> None:
    mutant = mutants.load()[id]
    (found,) = audit(mutant.make(2), 0, "quick", select=mutant.meant).findings
    assert words in found.wrong


OTHERS = ("fresh/the-lower-end-of-the-bracket",)
"""One that another change repairs as well: bisection without Newton's steps ends at its lower end."""


@pytest.mark.thorough
@pytest.mark.parametrize("id", [id for id in CAUSES if id not in AFTER])
def test_no_other_cause_is_shown_first(id: str) -> None:
    mutant = mutants.load()[id]
    report = audit(mutant.make(3), 1, "quick", select=mutant.meant)
    # nothing is found where this network hides the mistake from the meant check alone: what is found, the kill matrix tells
    row = confusion.rows_of([Verdict(id, "", (), (), 0.0, causes=tuple(map(shown, report.findings)))])[id]
    assert (confusion.outcome(row) == "another") == (id in OTHERS)


# A line that is named must be the line of the slip, changed as undoes it: the right kind of answer at another place is another cause.
@pytest.mark.parametrize(("first", "outcome"), [
    ("times-k", "right"), ("one-change: `/` for `*` in log_det, line 5", "right"),
    ("one-change: `/` for `*` in jacobian, line 4", "another"), ("sign", "another"), ("unexplained", "unexplained")])
def test_a_change_of_the_code_is_right_where_it_undoes_the_slip(first: str, outcome: str) -> None:
    verdicts = [Verdict("unseen/terms-times-k", "", (), (), 0.0, causes=(first,))]
    rows = confusion.rows_of(verdicts)
    assert confusion.outcome(rows["unseen/terms-times-k"]) == outcome
    assert confusion.read(confusion.markdown([], confusion.markdown(verdicts))) == rows


def test_two_names_of_one_mistake_are_both_right() -> None:
    assert [confusion.outcome(("sign=factor", (first,))) for first in ("sign", "factor", "sign=factor")] == ["right", "right", "another"]


def test_two_mistakes_are_two_findings() -> None:
    mutant = mutants.load_pairs()["pairs/per-dimension--minus-g"]
    report = audit(mutant.make(1), 0, "quick", select=["inverse.recovers-input", "inverse.keeps-tolerance", "logdet.matches-determinant"])
    assert {f.cause for f in report.findings} == {"factor", "inverse-sign"}


class Softened(torch.autograd.Function):
    """tanh, whose backward pass has one slope everywhere."""

    slope = 1.0

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return Softened.slope * grad


# With slope 1 it is the gradient at 0 as well: no number tells these two apart.
@pytest.mark.parametrize("slope", [1.0, 0.6])
def test_a_backward_pass_that_does_not_know_where_f_bends(slope: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Softened, "slope", slope)
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 3, bias=False, dtype=D)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return x + 0.5 * Softened.apply(net(x))  # type: ignore[no-untyped-call,no-any-return]

    report = audit(Subject(name="softened", event_shape=(3,), forward=forward, module=net, modes=("eval",)), 0, "quick",
                   select=["gradient.forward-input"])
    assert [f.cause for f in report.findings] == ["gradient-does-not-depend-on-x"]


# The density's log-det is at another point, the backward pass raises and memory is kept, all because F has written into its argument.
@pytest.mark.parametrize(("id", "other"), [("at-y", "at-another-point"), ("first-row", "one-row-for-all")])
def test_what_follows_from_a_changed_argument_is_folded_under_it(id: str, other: str) -> None:
    mutant = mutants.load_pairs()[f"pairs/input-mutated--{id}"]
    select = ["hygiene.memory", "hygiene.input-kept", "logdet.matches-determinant", "density.change-of-variables", "gradient.forward-input"]
    report = audit(mutant.make(1), 0, "quick", select=select)
    assert [f.cause for f in report.findings] == ["hygiene.input-kept", other]
    because = {c.id: c.because_of for c in report.checks if c.status == "failed"}
    assert because["hygiene.memory"] == because["gradient.forward-input"] == "hygiene.input-kept"


def test_a_right_network_has_no_finding_and_no_hypothesis_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iresnet_verify.diagnosis.diagnose.explained", None)
    report = audit(subject(), 0, "quick", select=["inverse.recovers-input", "logdet.matches-determinant"])
    assert report.status == "passed"
    assert report.findings == ()


def test_an_undeclared_estimate_is_asked_to_be_declared_and_judged_as_if_it_were() -> None:
    undeclared = replace(subject("roulette, sign"), log_det_is="exact", inverse_log_det=None)
    report = audit(undeclared, 0, "quick", select=["logdet", "estimator", "gradient.log-det", "hygiene.exact-log-det-not-random",
                                                   "hygiene.global-randomness-kept"])
    assert [c.id for c in report.checks if c.status == "failed"] == ["hygiene.exact-log-det-not-random"]
    (found,) = report.findings
    assert found.sentences.startswith("Your log-det is random.")
    assert found.change.startswith("Declare log_det_is='unbiased'")
    assert {c.id: c.status for c in report.checks}["estimator.unbiased"] == "passed"


def test_what_follows_is_folded_in_every_report(tmp_path: Path) -> None:
    mutant = mutants.load()["logdet/wrong-sign"]
    report = audit(mutant.make(1), 0, "quick", select=["logdet.matches-determinant", "logdet.adds-up", "logdet.all-magnitudes"])
    (found,) = report.findings
    assert set(found.follows) == {"logdet.adds-up", "logdet.all-magnitudes"}
    assert found.sentences.count(". ") <= 2
    console = Console(width=140, record=True, file=io.StringIO())
    terminal.show_one(report, console)
    text = console.export_text()
    assert text.index(found.wrong[:40]) < text.index("✕ ")
    assert text.count("logdet.adds-up") == 1  # in the line "hence these 2"
    report.to_junit(tmp_path / "report.xml")
    cases = ET.parse(tmp_path / "report.xml").findall(".//testcase[failure]")
    messages = {c.get("name"): str(c.find("failure").get("message")) for c in cases}  # type: ignore[union-attr]
    assert messages["logdet.adds-up"].startswith("follows from logdet.matches-determinant: ")
    assert messages["logdet.matches-determinant"] == found.wrong
    report.to_json(tmp_path / "report.json")
    assert list(report_json.read(tmp_path / "report.json")[0].findings) == [found]
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.index(found.change[:30]) < page.index('<div class="list">')


def test_without_hypotheses_failures_of_one_quantity_are_one_finding() -> None:
    mutant = mutants.load()["logdet/wrong-sign"]
    report = audit(mutant.make(1), 0, "quick", select=["logdet.matches-determinant", "logdet.adds-up"])
    results, found = attribute([replace(c, because_of=None) for c in report.checks], {})
    assert [f.cause for f in found] == ["unexplained"]
    assert {c.because_of for c in results if c.id == "logdet.adds-up"} == {"logdet.matches-determinant"}


def test_a_map_that_refuses_many_rows_is_audited_all_the_same() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 64:
            raise ValueError("at most 64 rows")
        return 2.0 * x

    (result,) = audit(Subject(name="few rows", event_shape=(3,), forward=forward), 0, "quick", select=["hygiene.forward-finite"]).checks
    assert result.status == "passed", result.message
