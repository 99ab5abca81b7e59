"""The page of a campaign: everything that failed leads to its evidence, nothing that a subject says can run, and its size is bounded."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from subjects.campaigns import project, units
from test_tally import Scripted, after, before, changing, check

from iresnet_verify.campaign import page, run
from iresnet_verify.campaign.store import Store
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.cli import commands as cli

HOSTILE = "<script>alert(1)</script>\x00 \"'& `code`"


class Elements(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(folder: Path) -> tuple[str, Elements]:
    with Store(folder) as store:
        text = page.render(store, store.runs()[-1].id, folder / "page.html")
    return text, Elements(text)


def test_every_failure_leads_to_its_evidence_and_its_reproduction(tmp_path: Path) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    script = str(folder / "reproduce/some audit/a.py")

    def checks(unit: Unit) -> list[dict[str, Any]]:
        return [*before(unit), check("logdet.x", "failed", 2.0, message="expected 1, got 3", reproduce=script)]

    changing(file, folder, before, checks)
    text, found = rendered(folder)
    ids = {a["id"] for _, a in found.tags if "id" in a}
    links = [str(a["href"])[1:] for t, a in found.tags if t == "a" and str(a["href"]).startswith("#f")]
    assert len(links) == 5
    assert set(links) <= ids
    assert "./reproduce/some%20audit/a.py" in {a.get("href") for _, a in found.tags}
    assert "python 'reproduce/some audit/a.py'" in found.text
    assert "expected 1, got 3" in found.text
    assert "6 of 6 seeds, rate in [0.54, 1], size 2" in found.text
    assert "6 of 6 audits failed: a rate in [0.54, 1]" in found.text
    assert "The sign is wrong." in found.text
    assert 'class="badge">new</span> subject.py:factory (s): logdet.x' in text
    assert re.findall(r">(\d/6|–)</td>", text)[:2], "the history of what failed"


def test_nothing_that_a_subject_says_becomes_markup_and_nothing_is_fetched(tmp_path: Path) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"

    def checks(unit: Unit) -> list[dict[str, Any]]:
        return [check("inverse.a", "failed", message=HOSTILE, claim=HOSTILE, reference=HOSTILE, tolerance=HOSTILE)]

    run.run(units(file, 2), folder, run.Options(task=Scripted(file, checks), label=HOSTILE))
    text, found = rendered(folder)
    assert [t for t, _ in found.tags].count("script") == 1
    assert "alert(1)" not in "".join(re.findall(r"<script>(.*?)</script>", text, re.DOTALL))
    assert not [a for _, a in found.tags if any(str(v).startswith(("http", "//")) for v in a.values())]
    policy = next(str(a["content"]) for t, a in found.tags if t == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert not any(k.startswith("on") or k == "style" for _, a in found.tags for k in a)


def test_the_page_is_bounded_and_says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"
    monkeypatch.setattr(page, "ROWS", 1)
    monkeypatch.setattr(page, "FAILURES", 2)
    task = Scripted(file, after)
    run.run([*units(file, 2), *units(file, 2, "with_data")], folder, run.Options(task=task))
    _, found = rendered(folder)
    assert "1 further subject" in found.text
    assert "further failures" in found.text
    assert len([a for t, a in found.tags if t == "details"]) == 2


def test_audits_without_a_verdict_are_named_and_an_empty_run_has_a_page(tmp_path: Path) -> None:
    file, folder = project(tmp_path / "p"), tmp_path / "c"

    def cut(unit: Unit, out: Path) -> dict[str, Any]:
        return {"exit": 3, "problem": "did not finish within 4 s", "report": None, "key": {}}

    run.run(units(file, 2), folder, run.Options(task=cut))
    _, found = rendered(folder)
    assert "No audit has come to a verdict yet." in found.text
    assert found.text.count("did not finish within 4 s") == 2
    assert cli.run(["campaign", "report", str(folder), "--html", str(tmp_path / "deep/er/page.html")]) == cli.PASSED
    assert (tmp_path / "deep/er/page.html").stat().st_size > 1000
