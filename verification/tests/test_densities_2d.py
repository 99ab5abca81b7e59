"""A smoke run of examples/paper/densities_2d.py: it learns, its density integrates to one, it draws, it continues."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from examples_of_the_paper import paper

SMALL = ["--blocks", "2", "--width", "8", "--batch", "64", "--learning-rate", "0.02", "--samples", "200", "--panels", "16"]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return paper("densities_2d")


@pytest.mark.parametrize("backend", ["numpy", "torch:cpu"])
def test_a_short_run(example: ModuleType, backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("safetensors")
    common = [*SMALL, "--backend", backend, "--only", "moons", "--folder", str(tmp_path), "--no-figure"]
    untrained = example.main([*common, "--steps", "0"])["moons"]
    whole = example.main([*common, "--steps", "120"])["moons"]
    assert abs(whole["integral"] - 1.0) < 1e-3
    assert whole["nats"] < untrained["nats"] - 10.0 * whole["standard_error"]
    assert whole["lipschitz"] <= example.LIPSCHITZ
    assert json.loads((tmp_path / "densities_2d.json").read_text("utf-8"))["moons"]["nats"] == whole["nats"]
    example.main([*common, "--steps", "100", "--resume"])
    continued = example.main([*common, "--steps", "120", "--resume"])["moons"]
    assert continued["nats"] == whole["nats"]
    assert example.main([*common, "--steps", "120", "--seconds", "0"])["moons"]["steps"] == 1
    assert "integral 1" in capsys.readouterr().out


def test_the_figure_is_drawn(example: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    example.main([*SMALL, "--steps", "3", "--only", "rings,pinwheel", "--folder", str(tmp_path)])
    assert (tmp_path / "densities_2d.png").read_bytes().startswith(b"\x89PNG")


def test_the_six_densities_lie_in_the_picture(example: ModuleType) -> None:
    assert list(example.DENSITIES) == ["eight_gaussians", "checkerboard", "moons", "rings", "two_spirals", "pinwheel"]
    for draw in example.DENSITIES.values():
        x = draw(4000, np.random.default_rng(1))
        assert x.shape == (4000, 2)
        assert np.isfinite(x).all()
        assert (np.abs(x) < 4.0).mean() > 0.999
