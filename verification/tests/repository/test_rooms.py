"""The rule of the rooms: a package imports only from rooms named before its own, and no module is in a circle.

Lazy imports and imports for types count. Besides: no dotted path means two things, and no folder is too wide to take in.
"""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from places import ROOT

ROOMS = {
    "iresnet_ref": """errors arrays rounding probes jacobian norms layers error_analysis normalisation branches block
                      inversion log_determinant gradient flows training""",
    "iresnet_verify": """statistics measurements subject adapters machine oracle randomness check expectation report catalogue
                         running diagnosis reproduction workers api pytest_plugin mutants campaign golden strategies cli __main__""",
}
"""The rooms of each package in the order in which they may import. The face of a package may import everything."""
PLACES = {
    "iresnet_ref": ROOT / "iresnet_ref",
    "iresnet_backends": ROOT / "backends/iresnet_backends",
    "iresnet_verify": ROOT / "verification/iresnet_verify",
}
WIDEST = 20
"""Files in one folder, at most."""
DEEPEST = 13
"""Rooms on the longest path of imports, at most."""


@cache
def modules(package: str) -> dict[str, Path]:
    """Return dotted name → file of all modules of a package, faces included."""
    found = {}
    for path in PLACES[package].rglob("*.py"):
        parts = [package, *path.relative_to(PLACES[package]).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    assert len(found) > 10, "the rule must not hold because nothing was read"
    return found


def imports(name: str, text: str, is_face: bool, known: set[str]) -> list[tuple[str, int]]:
    """Return the modules of the same package that a module imports, wherever the statement stands, with their lines."""
    own = name.split(".") if is_face else name.split(".")[:-1]
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            relative = own[: len(own) - node.level + 1] if node.level else []
            base = ".".join([*relative, *([node.module] if node.module else [])])
            found += [(f"{base}.{a.name}" if f"{base}.{a.name}" in known else base, node.lineno) for a in node.names]
        elif (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
              and getattr(node.func, "attr", getattr(node.func, "id", "")) in {"import_module", "__import__"}):
            found.append((str(node.args[0].value), node.lineno))
    return [(target, line) for target, line in found if target in known and target != name]


@cache
def graph(package: str) -> dict[str, list[tuple[str, int]]]:
    """Return module → what it imports, without the face of the whole package, which may import everything."""
    known = modules(package)
    return {name: imports(name, path.read_text("utf-8"), path.name == "__init__.py", set(known))
            for name, path in known.items() if name != package}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def pointing_up(rooms: str, edges: dict[str, list[tuple[str, int]]]) -> list[str]:
    """Return the imports that break the order of the rooms. A file beside the face that only hands names on is no room."""
    rank = {name: i for i, name in enumerate(rooms.split())}
    return [f"{name}:{line} -> {target}" for name, found in edges.items() for target, line in found
            if rank.get(room(target), len(rank)) > rank.get(room(name), len(rank) - 1)]


def circle(edges: dict[str, list[tuple[str, int]]]) -> str:
    """Return a circle of modules in words, or nothing."""
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> str:
        if name in way:
            return " -> ".join([*way[way.index(name):], name])
        if name in done:
            return ""
        done.add(name)
        return next((found for target, _ in edges.get(name, ()) if (found := visit(target, (*way, name)))), "")

    return next((found for name in edges if (found := visit(name, ()))), "")


@pytest.mark.parametrize("package", ROOMS)
def test_every_import_points_down(package: str) -> None:
    assert not pointing_up(ROOMS[package], graph(package))


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_is_in_the_list(package: str) -> None:
    """A file of its own beside the face is a room or hands on names of others (it defines nothing)."""
    faces = {room(name) for name, path in modules(package).items() if name.count(".") == 1 and defines_nothing(path)}
    rooms = set(ROOMS[package].split())
    assert {room(name) for name in graph(package)} - faces <= rooms
    assert rooms <= {room(name) for name in graph(package)}, "a room that does not exist"


def defines_nothing(path: Path) -> bool:
    body = ast.parse(path.read_text("utf-8")).body
    return path.name != "__init__.py" and all(isinstance(n, ast.Expr | ast.ImportFrom | ast.Assign) for n in body)


@pytest.mark.parametrize("package", PLACES)
def test_no_circle_of_modules(package: str) -> None:
    assert not circle(graph(package))


@pytest.mark.parametrize("package", ROOMS)
def test_no_path_of_imports_is_too_long(package: str) -> None:
    below = {name: {room(t) for n, found in graph(package).items() if room(n) == name for t, _ in found} - {name, ""}
             for name in ROOMS[package].split()}
    level: dict[str, int] = {}
    for name in ROOMS[package].split():  # the order is one of the levels: what is below comes first
        level[name] = 1 + max((level[b] for b in below[name]), default=0)
    assert max(level.values()) <= DEEPEST, level


def test_no_folder_is_too_wide() -> None:
    folders = [f for place in (*PLACES.values(), ROOT / "verification/tests") for f in [place, *place.rglob("*/")] if f.is_dir()]
    wide = {str(f.relative_to(ROOT)): n for f in folders if (n := len(list(f.glob("*.py")))) > WIDEST}
    assert len(folders) > 20
    assert not wide


@pytest.mark.parametrize("package", PLACES)
def test_no_dotted_path_means_two_things(package: str) -> None:
    """Where a module `a.b` exists, the attribute `b` of `a` is that module, however it is reached."""
    wrong = []
    for name in modules(package):
        parent, _, own = name.rpartition(".")
        if parent and own != "__main__" and not isinstance(getattr(importlib.import_module(parent), own, None), ModuleType | None):
            wrong.append(name)
    assert not wrong


ENGINE = ("running", "reproduction", "workers", "api", "pytest_plugin", "campaign", "cli")
RUNNERS = ("running", "reproduction", "workers", "catalogue", "subject.calls", "oracle")


def test_the_engine_imports_no_check_and_no_report_runs_anything() -> None:
    """Of the catalogue the engine knows its face alone; a writer of reports imports nothing that could call a subject."""
    edges = graph("iresnet_verify")
    checks = [(n, t) for n, found in edges.items() if room(n) in ENGINE for t, _ in found if t.startswith("iresnet_verify.catalogue.")]
    runs = [(n, t) for n, found in edges.items() if room(n) == "report" for t, _ in found
            if t.removeprefix("iresnet_verify.").startswith(RUNNERS)]
    assert any(t == "iresnet_verify.catalogue" for n, found in edges.items() if room(n) == "running" for t, _ in found)
    assert not checks
    assert not runs


@pytest.mark.parametrize(
    ("importer", "imported"),
    [("iresnet_ref.rounding", "iresnet_ref.inversion.solve"), ("iresnet_verify.report.json", "iresnet_verify.api"),
     ("iresnet_verify.check.registry", "iresnet_verify.catalogue.inverse.round_trips")],
)
def test_an_import_turned_round_is_seen(importer: str, imported: str) -> None:
    package = importer.split(".", maxsplit=1)[0]
    lazily = f"def f():\n    from {imported} import anything\n"
    edges = graph(package) | {importer: graph(package)[importer] + imports(importer, lazily, False, set(modules(package)))}
    assert pointing_up(ROOMS[package], edges) == [f"{importer}:2 -> {imported}"]


def test_a_circle_inside_a_room_is_seen() -> None:
    edges = {"p.a.x": [("p.a.y", 1)], "p.a.y": [("p.a.z", 1)], "p.a.z": [("p.a.x", 1)]}
    assert circle(edges) == "p.a.x -> p.a.y -> p.a.z -> p.a.x"


@pytest.mark.parametrize("package", ROOMS)
def test_the_design_page_lists_the_rooms_in_their_order(package: str) -> None:
    page = (ROOT / "docs/design.md").read_text("utf-8").split(f"## {package}")[1].split("## ")[0]
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == ROOMS[package].split()
