"""What a subject refuses is no pass, and stands on the first screen of every report."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from iresnet_verify import Report, audit
from iresnet_verify.cli import terminal
from iresnet_verify.mutants.block import Block, make

CHECK = "gradient.log-det"
NO_GRAD = "hygiene.no-grad"


class GradientInTrainingOnly(Block):
    """Its log-det carries no graph in evaluation, and it refuses to be called without autograd."""

    def log_det(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            raise RuntimeError("needs autograd")
        value = super().log_det(x)
        return value if self.training else value.detach()


@pytest.fixture(scope="module")
def report() -> Report:
    return audit(make(GradientInTrainingOnly, 0), budget="quick", select=[CHECK, NO_GRAD, "logdet.finite", "inverse.recovers-input"])


def test_what_is_refused_in_one_mode_is_no_pass_though_the_other_passes(report: Report) -> None:
    found = {c.id: c for c in report.checks}
    assert found[CHECK].status == "skipped"
    assert found[CHECK].mode == "eval"
    assert found[CHECK].evidence["modes"] == "train: passed, eval: skipped"
    assert found[CHECK].message.startswith("refused: the log-det carries no gradient in evaluation mode; train mode: ")
    assert found[NO_GRAD].status == "skipped"
    assert found["logdet.finite"].status == "passed"
    assert report.status == "passed"


def test_refusals_are_data(report: Report, tmp_path: Path) -> None:
    report.to_json(tmp_path / "a.json")
    refused = json.loads((tmp_path / "a.json").read_text("utf-8"))["refused"]
    assert [r["check"] for r in refused] == [CHECK, NO_GRAD]
    assert refused[0]["reason"] == "eval: the log-det carries no gradient in evaluation mode"
    assert "needs autograd" in refused[1]["reason"]


def test_refusals_stand_before_the_table_in_the_terminal(report: Report) -> None:
    out = io.StringIO()
    terminal.show([report], Console(file=out, width=100, no_color=True))
    text = out.getvalue()
    first = text.index("Refused, so not judged:")
    assert first < text.index("logdet.finite")
    assert f"{CHECK}: eval: the log-det carries no gradient" in text[first : text.index("logdet.finite")]


def test_refusals_stand_before_the_counts_on_the_page(report: Report, tmp_path: Path) -> None:
    report.to_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text("utf-8")
    assert page.index("Refused, so not judged:") < page.index('class="tiles"')


def test_a_subject_that_refuses_nothing_has_no_such_lines(tmp_path: Path) -> None:
    report = audit(make(Block, 0), budget="quick", select=[NO_GRAD])
    report.to_json(tmp_path / "a.json")
    report.to_html(tmp_path / "a.html")
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["refused"] == []
    assert "Refused, so not judged" not in (tmp_path / "a.html").read_text("utf-8")
