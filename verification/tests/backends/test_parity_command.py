"""`iresnet-verify parity` and `doctor --gpu`: right backends keep their bounds, a wrong one does not, no GPU is said so."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import pytest
from rich.console import Console

import iresnet_backends
from iresnet_ref.arrays import namespace
from iresnet_ref.jacobian.factors import Dense
from iresnet_verify.cli import commands as cli
from iresnet_verify.machine import backend_parity
from iresnet_verify.machine import gpu_page as gpu
from iresnet_verify.machine.backend_parity import QUANTITIES

TRUTH = backend_parity.Truth(0)


def test_backends_keep_their_bounds_and_draw_the_same_bits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "parity.json"
    assert cli.run(["parity", "numpy:cpu", "torch:cpu", "cupy:1", "--seed", "3", "--json", str(path)]) == cli.PASSED
    found = json.loads(path.read_text("utf-8"))
    assert {(r["backend"], r["dtype"], r["quantity"]) for r in found} == {
        (b, t, q) for b in ("numpy:cpu", "torch:cpu", "cupy:1") for t in ("float32", "float64") for q in QUANTITIES
    }
    assert all(r["kept"] and r["error"] >= 0.0 for r in found)
    assert "in units of its bound" in capfd.readouterr().out


class Wrong:
    """NumPy with one function whose results are off by about the rounding of float32, in a namespace of its own."""

    def __init__(self, name: str) -> None:
        self.changed = name

    def __getattr__(self, name: str) -> Any:
        right = getattr(xp, name)
        if name != self.changed:
            return right
        return lambda *a, **k: right(*a, **k) * (1.0 + 2.0**-24)


@pytest.mark.parametrize(
    ("name", "caught"),
    [
        ("asarray", set(QUANTITIES) - {"draws"}), ("tanh", {"forward", "inverse"}),
        ("product", set(QUANTITIES) - {"draws"}), ("nothing", set()),
    ],
)
def test_a_backend_that_rounds_more_than_it_says_is_caught(name: str, caught: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, truth = Wrong(name), TRUTH
    right = iresnet_backends.get("numpy", "float64")
    if name == "asarray":
        found = backend_parity.errors(dataclasses.replace(right, asarray=lambda a: right.asarray(a) * (1.0 + 2.0**-24)), truth)
    elif name == "product":
        apply = Dense.apply
        monkeypatch.setattr(Dense, "apply", lambda self, v: apply(self, v) * (1.0 + 2.0**-24 if isinstance(v, np.ndarray) else 1.0))
        found = backend_parity.errors(right, truth)
    else:
        for module in [m for m in sys.modules.values() if m.__name__.startswith("iresnet_ref") and hasattr(m, "namespace")]:
            monkeypatch.setattr(module, "namespace", lambda *a: wrong if xp is namespace(*a) else namespace(*a))
        found = backend_parity.errors(right, truth)
    assert {quantity for quantity, error in found.items() if not error <= 1.0} >= caught
    assert name != "nothing" or max(found.values()) <= 1.0


def test_other_bits_are_caught() -> None:
    other = backend_parity.Truth(0)
    vars(other).update(vars(TRUTH), draws=backend_parity.drawn(TRUTH.x, 1))
    assert backend_parity.errors(iresnet_backends.get("numpy", "float32"), other)["draws"] == np.inf


def test_without_a_gpu_the_page_says_so_and_why(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "available", lambda: ["numpy:cpu"])
    assert cli.run(["doctor", "--gpu"]) == cli.UNDECIDED
    assert "No GPU: nothing has been run." in capfd.readouterr().out
    assert cli.run(["doctor", "--json", "x.json"]) == cli.UNUSABLE


def test_the_page_of_a_gpu_is_printed_and_stored_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "BATCH", 64)
    monkeypatch.setattr(gpu, "SIZES", (8, 16, 8))
    monkeypatch.setattr(gpu, "REPEATS", 2)
    assert gpu.examine(Console(width=160), tmp_path / "out/gpu.json", ["cupy:0"])
    found = json.loads((tmp_path / "out/gpu.json").read_text("utf-8"))
    assert set(found) == {"versions", "platform", "parity", "times"}
    assert all(found["times"][0][name] > 0.0 for name in gpu.WORK)
    assert "Milliseconds for 64 rows" in capfd.readouterr().out
