"""The HTML report: complete, self-contained, escaped, readable without JavaScript, and alive in a real browser."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jinja2")

from sample_reports import (
    HOSTILE,
    declared,
    failing,
    gallery,
    passing,
    residual_curve,
    result,
    undecided,
)

from iresnet_verify import catalogue
from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.finding import Finding
from iresnet_verify.check.outcome import Counterexample, Status
from iresnet_verify.check.registry import Check
from iresnet_verify.check.result import CheckResult
from iresnet_verify.report.html import anchors, prose, render, write
from iresnet_verify.report.names import slug
from iresnet_verify.report.text import STATES, count, number, overall, seconds_text, state, value_text, verdict

VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """The elements of a page, with a check that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag: str, cls: str = "") -> list[dict[str, str]]:
        return [a for t, a in self.elements if t == tag and (not cls or cls in a.get("class", "").split())]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    path = tmp_path_factory.mktemp("reports") / "new folder" / "many.html"
    write(gallery(), path)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_every_result_is_on_the_page_and_urgent_ones_come_first_and_open(page: tuple[str, Page]) -> None:
    checks = page[1].all("details", "check")
    assert len(checks) == sum(len(r.checks) for r in gallery())
    keys = [s.key for s in STATES]
    first = [c["class"].split()[1] for c in checks if c["id"].startswith(f"{anchors(gallery())[0]}.")]
    assert first == sorted(first, key=keys.index)
    assert set(first) == set(keys)
    assert {c["class"].split()[1] for c in checks if "open" in c} == {"failed", "unexpected", "error"}


def test_everything_a_result_says_is_readable_without_script(page: tuple[str, Page]) -> None:
    text = " ".join("".join(page[1].text).split())
    for c in failing().checks:
        for part in (c.claim, c.message, c.tolerance, c.oracle, c.reference, c.expected or ""):
            assert " ".join(part.replace("`", "").split()) in text, part
    for words in (
        "largest error", "0.004127", "NaN", "∞", "train: 0.0041, eval: 0.0039", "array of shape (24, 8)",
        "unbiased in train, exact in eval", "log_det (batch, 1) was flattened", "2.13.0", "standard", "1 min 5 s",
        "Declared: five power iterations", "Declared to fail, but it passed", "A pass is a proof",
    ):
        assert words in text, words


def test_counts_name_every_outcome(page: tuple[str, Page]) -> None:
    totals = count([c for r in gallery() for c in r.checks])
    assert list(totals.values()) == [1, 1, 1, 2, 2, 1, 61]
    for s in STATES:
        assert re.search(rf'class="tile {s.key}"[^>]*><b>{totals[s.key]}</b>', page[0])
    text = "".join(page[1].text)
    assert f"{HOSTILE}, lipschitz: !1 unexpected pass, ◆1 declared failure" in text
    assert "RealNVP (nflows), parity: ✓3 passed" in text


def test_links_inside_the_page_lead_somewhere_and_ids_are_unique(page: tuple[str, Page]) -> None:
    ids = [a["id"] for _, a in page[1].elements if "id" in a]
    assert len(ids) == len(set(ids))
    named = [a[k] for _, a in page[1].elements for k in ("aria-labelledby", "aria-describedby") if k in a]
    inside = [a["href"][1:] for a in page[1].all("a") if a["href"].startswith("#")]
    assert {i for n in named for i in n.split()} | set(inside) <= set(ids)


def test_anchors_are_names_and_stay_when_other_subjects_and_checks_come_and_go() -> None:
    def ids(*reports: AuditResult) -> set[str]:
        return {a["id"] for a in Page(render(reports, Path("r.html"))).all("details", "check")}

    one, other = passing(), failing()
    alone = ids(one)
    assert alone == {f"{slug(str(one.subject['name']))}.{c.id}" for c in one.checks}
    assert alone <= ids(other, one)
    assert ids(replace(one, checks=one.checks[::3])) <= alone
    assert len(ids(one, one)) == 2 * len(alone)


def test_a_subject_takes_at_most_100_kilobytes() -> None:
    """The whole catalogue with ten failures, texts as long as in an audit of normflows; what two pages share does not count."""

    def of(check: Check, status: Status, message: int, evidence: int, tolerance: int, oracle: int, **more: Any) -> CheckResult:
        found = {f"largest error {k}": 1.234e-7 for k in range(evidence)}
        return CheckResult(check.id, check.family, status, check.claim, check.reference, check.kind, "x" * message, found,
                           "x" * tolerance, "x" * oracle, mode="eval", **more)

    errors = [10.0 ** (k % 5 - 7) for k in range(32)]
    plots = {"error": {"kind": "error-bound", "x": [1e-5] * 32, "y": errors}, "steps": {"kind": "residual", "y": errors, "bound": errors}}
    inputs = Counterexample({"x": np.zeros((1, 2)), "tolerance": 1e-5, "floor": 1e-13})
    every = list(catalogue.load().values())
    checks = [of(c, "failed", 163, 8, 75, 67, expected="x" * 130, counterexample=inputs, curves=plots if i == 0 else {},
                 reproduce=f"reproduce/a-flow.{c.id}.py") for i, c in enumerate(every[:10])]
    checks += [of(c, "skipped", 80, 1, 0, 8) if i % 3 == 1 else of(c, "passed", 51, 5, 63, 31) for i, c in enumerate(every[10:])]

    def page(*names: str) -> int:
        reports = [replace(passing(), subject={**passing().subject, "name": n}, checks=checks) for n in names]
        return len(render(reports, Path("r.html")).encode())

    assert page("a flow of ordinary length", "another flow of that length") - page("a flow of ordinary length") <= 100_000


def test_wall_time_and_cpu_time_are_told_apart() -> None:
    checks = [replace(result("inverse.a", "failed"), seconds=70.0, cpu_seconds=65.0),
              replace(result("logdet.a", "failed"), seconds=30.0, cpu_seconds=25.0)]
    text = " ".join("".join(Page(render([replace(passing(), checks=checks, seconds=200.0)], Path("r.html"))).text).split())
    assert "Wall time3 min 20 s" in text.replace(" 3 min", "3 min")
    assert "1 min 10 s, of which CPU 1 min 5 s" in text
    assert re.search(r"CPU time of the checks ?1 min 30 s", text)


def test_nothing_on_the_page_points_outside_it(page: tuple[str, Page]) -> None:
    text, parsed = page
    for _, attributes in parsed.elements:
        for key in ("src", "href", "action", "data", "poster", "srcset"):
            assert re.match(r"#|\./|data:,$", attributes.get(key, "#")), attributes
    assert not re.search(r"https?:|url\(|@import|//[a-z]+\.", text)
    policy = next(a["content"] for a in parsed.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    for tag in ("style", "script"):  # the policy allows exactly the two blocks that are there
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        assert len(blocks) == 1
        digest = base64.b64encode(hashlib.sha256(blocks[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not any(k == "style" or k.startswith("on") for _, a in parsed.elements for k in a)


def test_hostile_text_stays_text_wherever_it_stands() -> None:
    base = failing()
    evil = replace(
        base.checks[0], id=f"inverse.{HOSTILE}", family=HOSTILE, claim=f"`{HOSTILE}`", reference=HOSTILE, kind=HOSTILE,
        message=f"</summary>{HOSTILE}", evidence={HOSTILE: HOSTILE, "list": [HOSTILE]}, tolerance=HOSTILE, oracle=HOSTILE,
        expected=HOSTILE, mode=f'" onclick="alert(1)" {HOSTILE}', reproduce=f'javascript:alert(1)/"><{HOSTILE}',
        curves={HOSTILE: {**residual_curve(), "series": {HOSTILE: [1.0, 0.5]}, "ylabel": HOSTILE}, "x": {"kind": HOSTILE}},
    )
    report = replace(base, checks=[evil], environment={HOSTILE: HOSTILE}, budget=HOSTILE)
    text = render([report, base], Path("report.html"))
    parsed = Page(text)
    assert len(parsed.all("script")) == 1
    assert "alert(1)</script>" not in text
    assert not any(k.startswith("on") for _, a in parsed.elements for k in a)
    assert all(re.match(r"#|\./", a["href"]) for a in parsed.all("a"))
    assert prose("a `b<` c") == "a <code>b&lt;</code> c"


def test_a_reproduction_is_linked_relative_to_the_page(tmp_path: Path) -> None:
    target = tmp_path / "reports" / "a b-reproduce" / "x.py"
    report = replace(passing(), checks=[result("inverse.a", "failed", reproduce=str(target))])
    write([report], tmp_path / "reports" / "a b.html")
    text = (tmp_path / "reports" / "a b.html").read_text(encoding="utf-8")
    assert 'href="./a%20b-reproduce/x.py"' in text
    assert "python &#39;a b-reproduce/x.py&#39;" in text
    assert str(tmp_path) not in text


def test_each_subject_says_what_its_passes_rest_on(tmp_path: Path) -> None:
    text = render([failing(), passing()], tmp_path / "a.html")
    assert text.count('<p class="grounds">') == 4, "with its verdict and at its head"
    assert text.count('<b>proved</b> 20 identities') == 2
    assert text.count('<b>searched</b> 10 checks') == 2
    assert render([passing()], tmp_path / "a.html").count('<p class="grounds">') == 1


def test_the_verdict_says_what_was_and_was_not_found() -> None:
    assert verdict(failing()) == (
        "1 of the 6 checks that came to a result failed. 1 declared failure passed: remove the declaration. "
        "Also 1 error, 1 inconclusive, 1 skipped, 1 declared failure."
    )
    assert verdict(passing()) == "All 30 checks that came to a result passed."
    assert verdict(declared()) == "As declared: 27 checks passed and 1 failed as declared."
    assert [overall(r()).label for r in (failing, passing, declared, undecided)] == [
        "failed", "passed", "fails as declared", "inconclusive",
    ]
    assert "A log-determinant was given, but no check of it compared anything." in verdict(undecided())

    assert "1 check could not be carried out" in verdict(replace(passing(), checks=[result("state.a", "error")]))


@pytest.mark.parametrize(
    ("status", "expected", "shown"),
    [
        ("failed", None, "failed"), ("failed", "known", "declared"), ("passed", "known", "unexpected"),
        ("passed", None, "passed"), ("skipped", "known", "skipped"), ("inconclusive", "known", "inconclusive"),
    ],
)
def test_a_declaration_changes_how_a_result_is_shown_but_never_hides_it(
    status: Status, expected: str | None, shown: str,
) -> None:
    assert state(result("inverse.a", status, expected=expected)).key == shown


def test_a_page_without_subjects_or_checks_is_still_a_page() -> None:
    assert "Nothing was audited." in render([], Path("empty.html"))
    assert "No check was run." in render([replace(passing(), checks=[])], Path("none.html"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.23456e-7, "1.235×10⁻⁷"), (1e-6, "10⁻⁶"), (-0.5, "−0.5"), (math.nan, "NaN"), (-math.inf, "−∞"), (True, "yes"),
        (18_240, "18\u202f240"), (np.float32(0.25), "0.25"), (np.arange(3), "0, 1, 2"), (None, "—"), ((2, 3), "(2, 3)"),
        ({"a": 1}, "a: 1"), (list(range(20)), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, … (20 in all)"),
    ],
)
def test_values_read_as_people_write_them(value: Any, text: str) -> None:
    assert value_text(value) == text


def test_an_integer_too_long_for_python_to_print_has_a_size() -> None:
    assert value_text(10**5000) == "about 2¹⁶⁶¹⁰"


def test_durations_read_as_people_write_them() -> None:
    assert [seconds_text(s) for s in (0, 0.0312, 0.9999, 59.96, 3725)] == ["< 1 ms", "31 ms", "1.0 s", "1 min 0 s", "62 min 5 s"]
    assert number(12345678.0) == "1.235×10⁷"



PROBE = """
const say = {}, seen = () => [...document.querySelectorAll(".check")].filter((c) => c.checkVisibility()).length;
const press = (selector) => document.querySelector(selector).click();
const box = document.querySelector("#tools input"), [family, order] = document.querySelectorAll("#tools select");
const set = (element, value) => {
  element.value = value;
  for (const kind of ["input", "change"]) element.dispatchEvent(new Event(kind));
};
say.all = seen();
press('#tools .chips [data-state="declared"]'); say.declared = seen();
press('#tools .chips [data-state="passed"]'); say.both = seen();
press('#tools .chips [data-state="passed"]');
set(family, "inverse"); say.family = seen(); say.tally = document.querySelector("[role=status]").textContent;
box.focus(); box.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true })); say.cleared = seen();
set(box, "slogdet"); say.search = seen();
set(box, "no such words"); say.none = seen();
set(box, ""); set(order, "time"); say.slowest = document.querySelector(".subject .check h3").textContent;
set(order, "urgency"); say.urgent = document.querySelector(".subject .check h3").textContent;
press("#tools button:not([aria-pressed])"); say.closed = document.querySelectorAll(".check:not([open])").length;
document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "/", bubbles: true })); say.focus = document.activeElement === box;
press('.matrix a.cell[data-family="parity"]'); say.cell = seen();
press(".subject .findings li:last-child a");
await new Promise((done) => setTimeout(done, 200));
const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
say.open = target.open;
say.unhidden = seen();
say.below = target.getBoundingClientRect().top >= document.getElementById("tools").getBoundingClientRect().bottom;
say.copies = document.querySelectorAll(".reproduce code + .copy").length;
say.links = [...document.querySelectorAll(".check")].filter((c) => decodeURIComponent(c.querySelector(".here").hash) !== "#" + c.id).length;
say.problem = document.documentElement.dataset.problem ?? null;
document.body.dataset.probe = JSON.stringify(say);
"""


def browse(chromium: str, path: Path, profile: Path) -> tuple[str, str]:
    """The page's elements after its scripts have run, and what the browser had to say about it."""
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
            "--disable-dev-shm-usage", "--virtual-time-budget=3000", "--enable-logging=stderr",
            f"--user-data-dir={profile}", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, encoding="utf-8", check=True,
    )
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        message = "no chromium: install it (apt-get install chromium) to test the page in a browser"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def test_a_browser_opens_the_page_from_disk_without_a_complaint(chromium: str, tmp_path: Path) -> None:
    write(gallery(), tmp_path / "page.html")
    dom, console = browse(chromium, tmp_path / "page.html", tmp_path / "profile")
    assert 'data-ready="yes"' in dom
    assert "data-problem" not in dom
    assert console == ""  # neither an error of the script nor a refusal by the content security policy
    assert 'placeholder="Search checks' in dom
    assert len(re.findall(r'<button[^>]*data-state="', dom)) == len(STATES)
    assert "alert(1)</script>" not in dom


def test_filters_search_and_sorting_work_in_a_browser(chromium: str, tmp_path: Path) -> None:
    text = render(gallery(), tmp_path / "page.html")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)  # so that the probe may run
    text = text.replace("</body>", f'<script type="module">{PROBE}</script></body>')
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    dom, _ = browse(chromium, tmp_path / "page.html", tmp_path / "profile")
    found = re.search(r'data-probe="([^"]*)"', dom)
    assert found is not None
    total = sum(len(r.checks) for r in gallery())
    assert json.loads(html.unescape(found[1])) == {
        "all": total, "declared": 2, "both": 63, "family": 1, "tally": f"1 of {total} checks", "cleared": total,
        "search": 1, "none": 0, "slowest": "estimator.unbiased", "urgent": "inverse.recovers-input", "closed": 0,
        "focus": True, "cell": 6, "open": True, "unhidden": total, "below": True, "problem": None, "links": 0,
        "copies": sum(c.reproduce is not None for r in gallery() for c in r.checks),
    }


def test_a_subject_with_two_causes_is_printed_on_one_page(chromium: str, tmp_path: Path) -> None:
    """Letter paper, the shortest in use. What passed or follows from another failure is not printed."""
    roots = ("inverse.recovers-input", "logdet.matches-determinant")
    said = "expected equality within 2.1e-05, got a point 0.0065 away (5 of 8 rows); check the direction, the order of blocks and the steps"
    more = {"message": said, "curves": {"steps": residual_curve()}}
    failed = [result(id, "failed", reproduce=f"page-reproduce/subject.{id}.py", **more) for id in roots]
    follow = [result(f"{id}-{k}", "failed", message=said, because_of=id) for id in roots for k in range(5)]
    sure, change = "This predicts the wrong numbers at all 8 inputs tried, to rounding.", "Stop by the residual, and report a failure."
    causes = [Finding("", f"{id} stops after 12 steps whatever is left.", sure, change, id, (f"{id}-0", f"{id}-1")) for id in roots]
    write([replace(passing(), checks=[*failed, *follow, *passing().checks], findings=causes)], tmp_path / "page.html")
    pdf = tmp_path / "page.pdf"
    subprocess.run([chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}",
                    f"--print-to-pdf={pdf}", (tmp_path / "page.html").as_uri()], capture_output=True, check=True)
    assert max(map(int, re.findall(rb"/Count (\d+)", pdf.read_bytes()))) == 1
