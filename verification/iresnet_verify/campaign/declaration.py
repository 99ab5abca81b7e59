"""A campaign as a TOML file: subjects × parameters × backends × dtypes × budgets × seeds, and the checks.

    seeds = 200                          # 0 to 199; or a list
    checks = ["inverse", "logdet.*"]     # ids, families or patterns; without them all
    backends = ["numpy", "torch"]        # handed to factories as backend=
    dtypes = ["float32", "float64"]      # handed to factories as dtype=
    budgets = ["quick"]

    [[subjects]]
    factory = "flows.py:residual"        # from the folder of this file
    parameters = { depth = [1, 4], lipschitz = [0.5, 0.9] }   # every combination
    seeds = 50                           # any key of a campaign but `folder` and how it is run, for this subject

`TABLE` has all keys. Whatever is given on the command line wins.
"""

from __future__ import annotations

import difflib
import itertools
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from iresnet_verify.campaign.unit import Unit
from iresnet_verify.check.budget import BUDGETS, LONGEST
from iresnet_verify.running.plan import selected
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.loading import parse

MOST = 1_000_000
"""Audits of one campaign."""


def _is_seeds(v: Any) -> bool:
    return (type(v) is int and v >= 1) or (isinstance(v, list) and v != [] and all(type(s) is int and s >= 0 for s in v))


def _is_texts(v: Any) -> bool:
    return isinstance(v, list) and all(isinstance(s, str) and s for s in v)


def _is_positive(v: Any) -> bool:
    return isinstance(v, int | float) and not isinstance(v, bool) and v > 0


PLAIN = (bool, int, float, str)
Rule = tuple[str, Callable[[Any], bool]]
OF_SUBJECTS: dict[str, Rule] = {
    "seeds": ("a number of seeds ≥ 1, or a list of seeds ≥ 0", _is_seeds),
    "first": ("the first seed, where `seeds` is a number", lambda v: type(v) is int and v >= 0),
    "backends": ("a list of names", _is_texts),
    "dtypes": ("a list of names", _is_texts),
    "budgets": (f"a list out of {', '.join(BUDGETS)}", lambda v: _is_texts(v) and v != [] and set(v) <= set(BUDGETS)),
    "checks": ("a list of check ids, families or patterns", _is_texts),
    "ignore": ("a list of check ids, families or patterns", _is_texts),
    "alpha": ("a number between 0 and 1", lambda v: _is_positive(v) and v < 1),
    "load_seconds": (f"seconds, at most {LONGEST:g}", lambda v: _is_positive(v) and v <= LONGEST),
    "check_seconds": (f"seconds, at most {LONGEST:g}", lambda v: _is_positive(v) and v <= LONGEST),
}
"""Keys that may stand at the top and at each subject: what is expected, and whether a value is that."""
OF_ONE: dict[str, Rule] = {
    "factory": ("FILE.py:FACTORY", lambda v: isinstance(v, str)),
    "parameters": ("a table of numbers, texts or truth values, or lists of them", lambda v: isinstance(v, dict) and all(
        isinstance(x, PLAIN) or (isinstance(x, list) and x and all(isinstance(y, PLAIN) for y in x)) for x in v.values())),
}
AT_THE_TOP: dict[str, Rule] = {
    "folder": ("a folder", lambda v: isinstance(v, str) and v != ""),
    "workers": ("a number ≥ 1", lambda v: type(v) is int and v >= 1),
    "scheduler": ("an address, or local", lambda v: isinstance(v, str)),
    "again": ("a number ≥ 0", lambda v: type(v) is int and v >= 0),
    "subjects": ("[[subjects]]", lambda v: isinstance(v, list) and v != [] and all(isinstance(s, dict) for s in v)),
}
TABLE = {**AT_THE_TOP, **OF_ONE, **OF_SUBJECTS}
DEFAULTS: dict[str, Any] = {"seeds": 10, "first": 0, "backends": [], "dtypes": [], "budgets": ["quick"], "checks": [], "ignore": [],
                            "alpha": 1e-6, "load_seconds": 300.0, "check_seconds": None, "parameters": {}}


@dataclass(frozen=True)
class Declaration:
    """What a campaign file asks for."""

    folder: Path
    """Where results go: beside the file, unless it says where."""
    units: list[Unit] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it is run: workers, scheduler, again, as far as the file says."""


def folder_of(path: Path) -> Path:
    """The folder of a campaign: a folder is one, a file of a campaign names it."""
    if path.suffix != ".toml":
        return path
    named = _table(path).get("folder")
    return path.parent / named if named else path.with_name(f"{path.stem}-results")


def read(path: Path, given: Mapping[str, Any] | None = None) -> Declaration:
    """Read a campaign file; what is `given` (keys of subjects) wins. Raises `SubjectError` with the key and what was expected."""
    table = _table(path)
    shared = {k: v for k, v in table.items() if k in OF_SUBJECTS}
    units: list[Unit] = []
    for number, subject in enumerate(table.get("subjects", []), 1):
        where = f"{path}: subject {number}"
        _require(subject, {**OF_ONE, **OF_SUBJECTS}, where)
        if "factory" not in subject:
            raise SubjectError(f"{where}: expected a key factory, FILE.py:FACTORY, got {', '.join(subject) or 'nothing'}")
        units += units_of({**DEFAULTS, **shared, **subject, **(given or {})}, path.parent)
    if not units:
        raise SubjectError(f"{path}: expected at least one [[subjects]] with a factory, got none")
    return Declaration(folder_of(path), units, {k: table[k] for k in ("workers", "scheduler", "again") if k in table})


def units_of(options: Mapping[str, Any], folder: Path = Path()) -> list[Unit]:
    """All audits of one subject; `options` has the keys of `DEFAULTS` and `factory`, whose file is looked for from `folder` on."""
    options = {**DEFAULTS, **options}
    select, ignore = tuple(options["checks"]), tuple(options["ignore"])
    selected(select or None, ignore or None)
    file, colon, factory = options["factory"].rpartition(":")
    spec = f"{folder / file}:{factory}" if colon else options["factory"]
    seeds = options["seeds"] if isinstance(options["seeds"], list) else range(options["first"], options["first"] + options["seeds"])
    axes = {k: v if isinstance(v, list) else [v] for k, v in options["parameters"].items()}
    axes |= {"dtype": options["dtypes"]} if options["dtypes"] else {}
    count = len(seeds) * len(options["budgets"]) * max(1, len(options["backends"]))
    for values in axes.values():
        count *= len(values)
    if count > MOST:
        raise SubjectError(f"{options['factory']}: expected at most {MOST} audits, got {count}; try fewer seeds or parameters")
    origins = [replace(parse(spec, backend), arguments=tuple(zip(axes, values, strict=True)))
               for backend in options["backends"] or [None] for values in itertools.product(*axes.values())]
    return [Unit(origin, seed, budget, select, ignore, options["alpha"], options["load_seconds"], options["check_seconds"])
            for origin in origins for budget in options["budgets"] for seed in seeds]


def _table(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SubjectError(f"{path}: expected a campaign in TOML, got: {error}; docs/campaigns.md shows one") from error
    _require(table, {**AT_THE_TOP, **OF_SUBJECTS}, str(path))
    return table


def _require(table: Mapping[str, Any], rules: Mapping[str, Rule], where: str) -> None:
    for key, value in table.items():
        if key not in rules:
            close = difflib.get_close_matches(key, rules, 1)
            raise SubjectError(f"{where}: expected keys out of {', '.join(rules)}, got {key}" + (f"; try {close[0]}" if close else ""))
        words, holds = rules[key]
        if not holds(value):
            raise SubjectError(f"{where}: expected {key} to be {words}, got {value!r}")
