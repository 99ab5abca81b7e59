"""The public face of the reference: flat names with the reason for each, faces by subject, a help page that can be read."""

from __future__ import annotations

import ast
import importlib
import inspect
import pydoc
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
from places import ROOT

import iresnet_ref as ir
from iresnet_ref import errors

FACES = ("activations", "bijections", "bounds", "densities", "layers", "roulette", "spectral", "training")
SCREENS = 3 * 50
"""Lines of `help(ir)` at most."""


def flat() -> set[str]:
    return {n for n, v in vars(ir).items() if n[0] != "_" and not isinstance(v, ModuleType)}


def documented() -> dict[str, str]:
    """Return name → reason from the table of flat names in docs/api.md."""
    page = (ROOT / "docs/api.md").read_text("utf-8").split("## Faces")[0]
    rows = re.findall(r"^\| (.*?) \| (.*?) \|$", page, re.M)
    return {name: reason for names, reason in rows for name in re.findall(r"`ir\.(\w+)`", names)}


def test_the_flat_names_are_those_of_the_table_and_few() -> None:
    assert flat() == documented().keys()
    assert all(documented().values())
    assert len(flat()) <= 50


@pytest.mark.parametrize("face", FACES)
def test_a_face_hands_on_names_only_and_is_in_the_table(face: str) -> None:
    module = getattr(ir, face)
    assert module.__name__ == f"iresnet_ref.{face}"
    assert {n for n, v in vars(module).items() if n[0] != "_" and not isinstance(v, ModuleType)} == set(module.__all__)
    page = (ROOT / "docs/api.md").read_text("utf-8").split("## Faces")[1]
    row = next(line for line in page.splitlines() if line.startswith(f"| `ir.{face}` |"))
    assert set(re.findall(r"`(\w+)`", row)) == set(module.__all__)
    body = ast.parse(Path(str(module.__file__)).read_text("utf-8")).body
    assert all(isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign) for node in body), "a face defines nothing"
    assert not flat() & set(module.__all__), "one name, one place"


def test_the_faces_come_with_the_package_and_training_costs_nothing_before() -> None:
    program = "import sys, iresnet_ref as ir; ir.bijections.ActNorm; assert 'iresnet_ref.training' not in sys.modules; ir.training.fit"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert set(FACES) <= set(dir(ir))
    with pytest.raises(AttributeError, match=r"no attribute 'ActNorm'; .* ir\.bijections"):
        _ = ir.ActNorm  # type: ignore[attr-defined]


def test_help_fits_on_three_screens_and_begins_with_what_to_do_first() -> None:
    lines = pydoc.plain(pydoc.render_doc(ir)).splitlines()
    assert len(lines) <= SCREENS
    assert "ir.ResidualBlock(ir.mlp(" in "\n".join(lines[:12])


def test_every_public_function_has_an_example() -> None:
    everywhere = {f"ir.{n}": getattr(ir, n) for n in flat()}
    for face in FACES:
        everywhere |= {f"ir.{face}.{n}": getattr(getattr(ir, face), n) for n in getattr(ir, face).__all__ if face != "training"}
    functions = {n: f for n, f in everywhere.items() if isinstance(f, FunctionType)}
    assert len(functions) > 20
    assert not [n for n, f in functions.items() if ">>>" not in (f.__doc__ or "")]


def test_every_exported_error_is_raised_in_the_package() -> None:
    raised = {
        getattr(call.func, "id", "")
        for path in (ROOT / "iresnet_ref").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for call in ast.walk(node) if isinstance(node, ast.Raise | ast.Return) and isinstance(call, ast.Call)
    }
    public = {n for n in flat() | set(ir.training.__all__) if n in vars(errors)}
    assert public == {n for n, v in vars(errors).items() if inspect.isclass(v) and v.__module__ == errors.__name__}
    assert public - {"IResNetError"} <= raised
    assert all(issubclass(getattr(errors, n), ir.IResNetError) for n in public)


def test_a_name_is_the_same_object_wherever_it_is_handed_on() -> None:
    for face in FACES:
        module = importlib.import_module(f"iresnet_ref.{face}")
        for name in module.__all__:
            home = getattr(getattr(module, name), "__module__", "")
            if home.startswith("iresnet_ref."):
                assert getattr(importlib.import_module(home), name) is getattr(module, name)
