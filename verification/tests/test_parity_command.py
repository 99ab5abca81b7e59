"""`iresnet-verify parity` and `doctor --gpu`: right backends keep their bounds, a wrong one does not, no GPU is said so."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import iresnet_backends
from iresnet_verify import backend_parity, cli, gpu
from iresnet_verify.backend_parity import QUANTITIES


def test_backends_keep_their_bounds_and_draw_the_same_bits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "parity.json"
    assert cli.run(["parity", "numpy:cpu", "torch:cpu", "cupy:1", "--seed", "3", "--json", str(path)]) == cli.PASSED
    found = json.loads(path.read_text("utf-8"))
    assert {(r["backend"], r["dtype"], r["quantity"]) for r in found} == {
        (b, t, q) for b in ("numpy:cpu", "torch:cpu", "cupy:1") for t in ("float32", "float64") for q in QUANTITIES
    }
    assert all(r["kept"] and r["error"] >= 0.0 for r in found)
    assert "in units of the rounding bound" in capfd.readouterr().out


def test_a_backend_that_rounds_more_than_it_says_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = iresnet_backends.get("numpy", "float64")

    def rounded(a: Any) -> Any:
        return right.asarray(np.asarray(a) * (1.0 + 2.0**-30))

    wrong = dataclasses.replace(right, asarray=rounded)
    monkeypatch.setattr(backend_parity, "get", lambda name, *rest: wrong if name == "numpy" else iresnet_backends.get(name, *rest))
    assert not [p for p in backend_parity.measure(["numpy"]) if p.dtype == "float64" and p.quantity == "forward" and p.kept]


def test_without_a_gpu_the_page_says_so_and_why(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "available", lambda: ["numpy:cpu"])
    assert cli.run(["doctor", "--gpu"]) == cli.UNDECIDED
    assert "No GPU: nothing has been run." in capfd.readouterr().out
    assert cli.run(["doctor", "--json", "x.json"]) == cli.UNUSABLE


def test_the_page_and_its_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu, "BATCH", 64)
    monkeypatch.setattr(gpu, "SIZES", (8, 16, 8))
    monkeypatch.setattr(gpu, "REPEATS", 2)
    assert gpu.examine(Console(width=160), tmp_path / "out/gpu.json", ["cupy:0"])
    found = json.loads((tmp_path / "out/gpu.json").read_text("utf-8"))
    assert set(found) == {"versions", "platform", "parity", "times"}
    assert all(found["times"][0][name] > 0.0 for name in gpu.WORK)
    assert "Milliseconds for 64 rows" in capfd.readouterr().out
