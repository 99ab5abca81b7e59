"""The file of golden vectors that comes with the package, and its form as NumPy arrays.

It has one object per case. `layers` and `inputs` say what to compute; `quantities` maps a name to

    value          the nearest float64 numbers, a row for each event (one number for a norm)
    radius         |value − truth| is at most that in each entry of the row
    amplification  an evaluation with unit roundoff u errs by no more than about amplification · u, first order in u; at least 1
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "iresnet golden vectors"
VERSION = 1
"""Rises whenever a number, a name or the form changes."""


def text() -> str:
    """Return the JSON text of this version."""
    return files("iresnet_verify.golden").joinpath("vectors.json").read_text(encoding="utf-8")


@cache
def read() -> dict[str, Any]:
    """Return the golden vectors of this version, the same object each time.

    >>> read()["format"], read()["version"], len(read()["cases"])
    ('iresnet golden vectors', 1, 30)
    """
    found: dict[str, Any] = json.loads(text())
    return found


def write_npz(path: Path) -> None:
    """Write them as arrays named `case/quantity/value` …, `case/inputs/x` …, and the layers as JSON text in `case/layers`."""
    vectors = read()
    arrays: dict[str, Any] = {"version": np.asarray(vectors["version"])}
    for case in vectors["cases"]:
        arrays |= {f"{case['id']}/inputs/{name}": np.asarray(given) for name, given in case["inputs"].items()}
        arrays[f"{case['id']}/layers"] = np.asarray(json.dumps(case["layers"]))
        for name, parts in case["quantities"].items():
            arrays |= {f"{case['id']}/{name}/{part}": np.asarray(numbers) for part, numbers in parts.items()}
    np.savez(path, **arrays)
