"""Everything printed in the docs runs: the README's Python, and every docstring example."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

import iresnet_backends
import iresnet_ref
import iresnet_verify

MODULES = sorted(
    module.name
    for package in (iresnet_ref, iresnet_backends, iresnet_verify)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
)


SLOW = {"audit/recipes-jax.md"}
"""Pages whose blocks take long, or need packages that are not in every environment."""


class Examples(doctest.DocTestFinder):
    """Finds the examples of decorated functions too: they are known by the module of what is wrapped."""

    def _from_module(self, module: Any, object: Any) -> bool:
        return bool(super()._from_module(module, inspect.unwrap(object)))  # type: ignore[misc]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    found = Examples().find(module, name)
    own = {n: thing for n, thing in vars(module).items() if getattr(thing, "__module__", "") == name and hasattr(thing, "__name__")}
    public = {n for n, thing in own.items() if ">>>" in (getattr(thing, "__doc__", "") or "")}
    assert public <= {test.name.removeprefix(f"{name}.") for test in found if test.examples}
    runner = doctest.DocTestRunner()
    for test in found:
        runner.run(test)
    assert runner.failures == 0


def test_the_page_of_the_checks_is_the_catalogue() -> None:
    from iresnet_verify import catalogue
    from iresnet_verify.report.catalogue_page import markdown

    page = markdown(list(catalogue.load().values()))
    assert (ROOT / "docs/checks.md").read_text(encoding="utf-8") == page, "run: make tables"


PAGES = [
    pytest.param(path, id=name, marks=[pytest.mark.thorough] if name in SLOW else [])
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if "```python" in path.read_text("utf-8")
    for name in [path.relative_to(ROOT / "docs").as_posix()]
]
BLOCK = re.compile(r"```python\n(.*?)```(?:\n+```text\n(.*?)```)?", re.S)
"""A block of Python and, where a block of text follows at once, what it prints: `...` stands for anything."""


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_and_print_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after another in one namespace, as a reader types them; one that begins with `# name.py` is that file too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, Any] = {"__name__": page.stem}
    declared: list[Any] = [None]
    loaded = set(sys.modules)
    wide = sys.modules["jax"].config.jax_enable_x64 if "jax" in loaded else False
    try:
        for code, printed in BLOCK.findall(page.read_text("utf-8")):
            for package in re.findall(r"^(?:import|from) (equinox|flax)\b", code, re.M):
                pytest.importorskip(package)
            if file := re.match(r"# (\w+\.py)\n", code):
                (tmp_path / file.group(1)).write_text(code, encoding="utf-8")
            exec(compile(code, str(page), "exec", dont_inherit=True), names)
            out = capsys.readouterr().out
            same = doctest.OutputChecker().check_output(printed, out, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            assert same or not printed, f"it prints:\n{out}"
            if names.get("factory") not in declared:
                declared.append(names["factory"])
                _check_recipe(names["factory"])
    finally:
        for name in {path.stem for path in tmp_path.glob("*.py")} - loaded:
            sys.modules.pop(name, None)
        if "jax" in sys.modules:  # a page that asks for 64 bits asks for itself alone
            sys.modules["jax"].config.update("jax_enable_x64", wide)


def _check_recipe(factory: Any) -> None:
    """A subject that a page declares can be read, and what it says of its inverse and log-det holds."""
    from iresnet_verify import audit

    report = audit(factory(), budget="quick", select=["hygiene.readable", "inverse.recovers-input", "logdet.matches-determinant"])
    assert {c.status for c in report.checks} <= {"passed", "skipped"}, [(c.id, c.status, c.message) for c in report.checks]
    assert any(c.status == "passed" and c.id != "hygiene.readable" for c in report.checks)


def test_readme_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subject, plugin, reference, trained = re.findall(
        r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S
    )
    (tmp_path / "my_flow.py").write_text(subject, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        namespace: dict[str, object] = {}
        exec(plugin, namespace)
        assert callable(namespace["test_my_flow"])
        exec(reference, {})
        exec(trained, flow := dict[str, Any]())
    finally:
        sys.modules.pop("my_flow", None)
    out = capsys.readouterr().out
    assert "Certificate(bound=0.3" in out
    assert "proved Lip(g) ≤ 0.9000" in out
    assert flow["loss"].item() < 1.8  # a Gaussian of the moons' covariance has 1.9 nats
    assert flow["samples"].shape == (1000, 2)


def test_readme_subject_passes_its_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from iresnet_verify import audit

    subject = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[0]
    namespace: dict[str, object] = {}
    exec(subject, namespace)
    report = audit(namespace["factory"](), seed=0, budget="quick")  # type: ignore[operator]
    assert report.status == "passed", [(c.id, c.status, c.message) for c in report.checks if c.status != "passed"]


def test_the_consumer_that_is_typed_strictly_runs() -> None:
    import typed_consumer

    x, error = typed_consumer.round_trip(0)
    assert x.shape == (4, 2)
    assert error < 1e-8
    assert (abs(typed_consumer.log_dets(0)) <= 2 * 1.7).all()  # 2·|log(1 − .8)| and more
    assert typed_consumer.failures(typed_consumer.SUBJECT) == []


def test_the_new_check_of_contributing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails on the mutant that is meant for it, and passes on a correct network."""
    from correct_subjects import complete

    from iresnet_verify import audit, mutants
    from iresnet_verify.check.registry import CATALOGUE
    from iresnet_verify.measurements import maps

    check, measurement, _ = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)
    names = dict(vars(maps))
    exec(measurement, names)
    monkeypatch.setattr(maps, "apart_when_alone", names["apart_when_alone"], raising=False)
    try:
        exec(check, {"__name__": "contributing"})
        made = mutants.load()["inverse/mean-residual-decides"].make(1)
        wrong, right = (audit(subject, budget="quick", select=["inverse.row-by-row"]).checks[0] for subject in (made, complete(0)))
    finally:
        CATALOGUE.pop("inverse.row-by-row", None)
    assert [wrong.status, right.status] == ["failed", "passed"], (wrong.message, right.message)
