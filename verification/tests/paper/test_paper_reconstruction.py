"""examples/paper/reconstruction.py in small: what it claims of trained networks, and its figures where they are known."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from examples_of_the_paper import paper

import iresnet_ref as ir
from iresnet_ref.arrays import to_host

SMALL = ["--blocks", "2", "--channels", "4", "--batch", "16", "--steps", "2", "--images", "12"]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    for package in ("sklearn", "mlxtend", "PIL"):
        pytest.importorskip(package)
    return paper("reconstruction")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("backend", "task", "constants"), [("numpy", "mnist", ".5,.9"), ("numpy", "patches", ".9"), ("torch:cpu", "mnist", ".5")]
)
def test_trained_networks_are_reconstructed_and_the_standard_one_is_not(
    example: ModuleType, backend: str, task: str, constants: str, tmp_path: Path
) -> None:
    options = ["--backend", backend, "--only", task, "--constants", constants, "--folder", str(tmp_path), "--no-figure"]
    *invertible, standard = example.main([*SMALL, *options])[task]
    for result in invertible:
        row, curve = result["row"], result["curve"]
        assert row["Lip(g) ≤"] <= result["lipschitz"]
        assert row["max error, f64"] <= 1e-5
        assert row["f32 in u·condition"] <= 100.0
        assert row["max error, f64"] < 1e-3 * row["max error, f32"], "in two precisions"
        assert (np.asarray(curve.norm[:6]) <= curve.bound[:6]).all()  # up to 20 steps: above rounding
        assert curve.norm[-1] < 1e-6 * curve.norm[0]
    assert standard["row"]["Lip(g) ≤"] > 1.0
    assert standard["row"]["max error, f64"] > 1.0, "of images in [0, 1]"
    strict = json.loads((tmp_path / "reconstruction.json").read_text("utf-8"), parse_constant=pytest.fail)["rows"]
    written = [{k: np.inf if v == "inf" else v for k, v in row.items()} for row in strict]
    assert written == [result["row"] for result in (*invertible, standard)]
    kept = {path.stem for path in (tmp_path / "large-models").iterdir()}
    assert kept == {f"reconstruction-{task}-{float(c)}" for c in constants.split(",")}, "the standard network makes no promises"


# g(x) = −cx: x_k − x* = cᵏ(x₀ − x*) with every error of the same sign, so that the bound is attained in each of three blocks.
def test_the_bound_is_attained_by_a_linear_network(example: ModuleType) -> None:
    c = 0.5
    identity = np.eye(4)[:, :, None, None]
    branch = ir.convnet((4, 2, 2), kernels=(1,), lipschitz=c).with_parameters({"0.weight": -c * identity, "0.bias": np.zeros(4)})
    steps = ir.bijections.Composition((ir.bijections.Squeeze((1, 4, 4)), *[ir.ResidualBlock(branch)] * 3))
    images = np.random.default_rng(0).uniform(0.1, 1.0, (3, 1, 4, 4))
    curve = example.banach(steps, images, certified=True)
    assert np.allclose(curve.norm[:6], curve.bound[:6], rtol=1e-6)
    one = 1.0 - (1.0 - c ** (example.ITERATIONS[3] + 1)) ** 3  # each block returns (1 − c^(k+1)) of its preimage
    assert np.isclose(curve.pixel[3], one * images.max())
    found = example.inverted(steps, images)
    assert np.allclose(found["condition"], (1.0 - c) ** -3)
    assert np.allclose(found["in_units"] * found["condition"] * 2.0**-53, found["error"])


def test_both_networks_begin_alike_and_end_apart(example: ModuleType) -> None:
    x = np.random.default_rng(1).uniform(size=(40, 1, 8, 8))
    images = example.Images(x, np.arange(40) % 3, 256)
    task = example.Task("noise", images, images, squeezes=1)
    options = _options(example, steps=0)
    raw, free = example.network(task, options, np.zeros(1)), example.train(task, None, options)
    assert all(np.array_equal(p, to_host(free.parameters()[k])) for k, p in raw.parameters().items())
    held = example.train(task, 0.5, options)
    name = "1.0.weight"
    ratio = to_host(held.parameters()[name]) / raw.parameters()[name]
    assert np.allclose(ratio, ratio.reshape(-1)[0])
    assert ratio.max() < 1.0
    assert np.isclose(np.mean(raw.parameters()[name] ** 2), 2.0 / (4 * 9))
    assert raw.bias.shape == (3,)
    assert len(task.to_show(40)) == 10


@pytest.mark.thorough
def test_the_pictures_are_drawn(example: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    steps = [*SMALL[:-4], "--steps", "0", "--images", "10"]
    example.main([*steps, "--only", "patches", "--constants", ".5", "--folder", str(tmp_path)])
    for name in ("reconstruction", "reconstruction_error"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def _options(example: ModuleType, **numbers: Any) -> Any:
    made = example.parser("", batch=8, blocks=2, channels=4, learning_rate=1e-3, **numbers)
    return made.parse_args([])
