"""Smoke runs of examples/paper/images.py and images_bias.py: they learn, the estimates are where they should be, they continue."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from examples_of_the_paper import paper

import iresnet_ref as ir

RECIPE = """
data = "digits"
held_out = 48
lipschitz = 0.97
[[scale]]
squeeze = true
factor_out = true
blocks = 1
channels = 8
kernels = [3, 1, 3]
[dense]
blocks = 2
width = 24
[training]
steps = {steps}
batch = 32
learning_rate = 2e-2
warm_up = 2
terms = 5
estimator = "{estimator}"
"""


@pytest.fixture(scope="module")
def images() -> ModuleType:
    pytest.importorskip("safetensors")
    pytest.importorskip("sklearn")
    pytest.importorskip("rich")
    return paper("images")


def recipe(folder: Path, steps: int = 15, estimator: str = "roulette") -> str:
    path = folder / "small.toml"
    path.write_text(RECIPE.format(steps=steps, estimator=estimator), encoding="utf-8")
    return str(path)


@pytest.mark.thorough
def test_it_learns_and_continues_bit_for_bit(images: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [recipe(tmp_path), "--folder", str(tmp_path), "--draws", "2"]
    untrained = images.main([*common, "--no-figure", "--steps", "0"])[0]
    whole = images.main([*common, "--samples", "4"])
    exact, unbiased, five, _ = whole
    # as if the two were measured on different images: on the same ones the difference is known better still
    error = np.hypot(exact["standard error"], untrained["standard error"])
    assert exact["bits per dimension"] < untrained["bits per dimension"] - 3.0 * error
    assert exact["of estimator"] == 0.0 < exact["of noise"] < exact["standard error"]
    # 6 standard errors: a false alarm in 5e8 runs; the interval is narrower than a hundredth of a bit
    assert abs(unbiased["bits per dimension"] - exact["bits per dimension"]) < 6.0 * unbiased["of estimator"] < 0.01
    assert np.isfinite(five["bits per dimension"])
    written = json.loads((tmp_path / "images-small.json").read_text("utf-8"))
    assert written["rows"][0]["bits per dimension"] == exact["bits per dimension"]
    assert written["lipschitz"] <= 0.97
    assert (tmp_path / "images-small.png").read_bytes().startswith(b"\x89PNG")
    images.main([*common, "--no-figure", "--steps", "7", "--resume"])
    continued = images.main([*common, "--no-figure", "--resume"])
    assert continued == whole
    assert "lipschitz 0.9" in capsys.readouterr().out


def test_the_saved_model_is_the_one_that_was_measured(images: ModuleType, tmp_path: Path) -> None:
    from iresnet_backends import load

    found = images.main([recipe(tmp_path, steps=2), "--folder", str(tmp_path), "--draws", "1", "--no-figure"])[0]
    flow = load(tmp_path / "models" / "images-small.safetensors")
    made = images._recipes.read(str(tmp_path / "small.toml"))
    held_out = images._recipes.images(made, None)[1]
    again = images.bits(flow, held_out, np.zeros(1), ir.Options(logdet="exact"))
    assert again.mean == found["bits per dimension"]
    assert all(ir.certify(block).bound <= 0.97 for block in images.blocks(flow.steps))


def trained(images: ModuleType, folder: Path, lipschitz: float) -> tuple[Any, Any]:
    """A flow trained with the truncated series, and held-out images."""
    from dataclasses import replace

    made = replace(images._recipes.read(recipe(folder, steps=25, estimator="series")), lipschitz=lipschitz)
    pixels, held_out, levels, _ = images._recipes.images(made, None)
    return images.train(made, pixels, levels, np.zeros(1)).model, held_out


@pytest.mark.thorough
def test_the_truncated_series_promises_too_much_and_more_at_a_larger_constant(images: ModuleType, tmp_path: Path) -> None:
    measures = paper("_image_measures")
    bias = {}
    for lipschitz in (0.5, 0.97):
        flow, held_out = trained(images, tmp_path, lipschitz)
        found = measures.truncation_bias(flow, held_out, np.zeros(1), (1, 5))
        bias[lipschitz] = {n: (float(b.mean()), float(b.std(ddof=1) / len(b) ** 0.5)) for n, b in found.items()}
    for n, factor in ((1, 2.0), (5, 4.0)):  # what is left out is of the order Lⁿ⁺¹
        mean, error = bias[0.97][n]
        assert mean < -4.0 * error
        assert mean < factor * bias[0.5][n][0] < 0.0, bias
    assert bias[0.97][1][0] < bias[0.97][5][0]


def test_the_bias_is_that_of_the_series_the_library_computes(images: ModuleType, tmp_path: Path) -> None:
    """Probes of an orthogonal block of 64 make every trace exact: then series minus determinant is the bias, to rounding."""
    measures = paper("_image_measures")
    made = images._recipes.read(recipe(tmp_path))
    pixels, held_out, levels, _ = images._recipes.images(made, None)
    flow = images._recipes.flow(made, (1, 8, 8), levels, np.zeros(1)).initialise(measures.dequantised(pixels[:64], np.zeros(1), 0))
    orthogonal = ir.Options(logdet=ir.Series(3, probes=ir.Probes(kind="hadamard", block=64)))
    exact = images.bits(flow, held_out[:4], np.zeros(1), ir.Options(logdet="exact")).rows[0]
    series = images.bits(flow, held_out[:4], np.zeros(1), orthogonal).rows[0]
    bias = measures.truncation_bias(flow, held_out[:4], np.zeros(1), (3,))[3]
    np.testing.assert_allclose(series - exact, bias, rtol=0.0, atol=1e-12)
    assert np.abs(bias).max() > 1e-9


def test_rows_of_different_parts_draw_different_noise_and_probes(images: ModuleType, tmp_path: Path) -> None:
    measures = paper("_image_measures")
    made = images._recipes.read(recipe(tmp_path))
    pixels, held_out, levels, _ = images._recipes.images(made, None)
    flow = images._recipes.flow(made, (1, 8, 8), levels, np.zeros(1))
    flow = flow.initialise(images.dequantised(pixels[:64], np.zeros(1), 0))
    once = ir.Options(logdet=ir.Roulette(ir.roulette.near_optimal(0.97, 5.0)))
    same = np.repeat(images.dequantised(held_out[:1], np.zeros(1), 0), 4, axis=0)
    parts = [part for draw in (0, 1) for part in measures._batches(flow, same, once, 2, draw)]
    assert len(np.unique([flow.log_prob(x, options=own).value for x, own in parts])) == 8
    quiet = images.bits(flow, np.repeat(held_out[:1], 4, axis=0), np.zeros(1), ir.Options(logdet="exact"), draws=2, at_once=2)
    assert len(np.unique(quiet.rows)) == 8


def test_errors_over_images_noise_and_estimator_are_told_apart() -> None:
    found = paper("_image_measures").Bits(np.asarray([[1.0, 3.0], [2.0, 6.0]]), 0.25)
    assert found.mean == 3.0
    assert found.standard_error == pytest.approx(1.5)  # of the images' means 1.5 and 4.5
    assert found.of_noise == pytest.approx(np.sqrt(2.5 / 4.0))  # variances .5 and 8 about them, halved: two draws; two images


def test_every_block_is_met_also_behind_a_factor_out(images: ModuleType) -> None:
    made = images._recipes.read("digits")
    flow = images._recipes.flow(made, (1, 8, 8), 17, np.zeros(1))
    x = np.full((2, 1, 8, 8), 3.5) + np.random.default_rng(0).uniform(size=(2, 1, 8, 8))
    flow = flow.initialise(x)
    shapes = [chain.in_shape for chain in paper("_image_measures").jacobians(flow.steps, x)]
    assert shapes == [block.branch.event_shape for block in images.blocks(flow.steps)]
    assert shapes == [(4, 4, 4)] * 2 + [(2, 4, 4)] + [(64,)] * 4


def small_recipe(recipes: ModuleType, steps: int) -> Any:
    """CIFAR-10's in small: the same three scales, between whose proofs lie two steps."""
    from dataclasses import replace

    whole = recipes.read("cifar10")
    scales = tuple(replace(scale, blocks=1, channels=12) for scale in whole.scales)
    return replace(whole, scales=scales, training=replace(whole.training, steps=steps, batch=8, certify_every=3))


@pytest.mark.thorough
def test_the_whole_cost_is_that_of_its_blocks(images: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from iresnet_backends import get
    from iresnet_verify.machine import prediction

    for name, value in (("SIZES", (2**12, 2**14)), ("IN_USE", 2**15), ("SHORTEST", 1e-5)):
        monkeypatch.setattr(prediction, name, value)
    cost, recipes = paper("_image_cost"), paper("_recipes")
    small = small_recipe(recipes, 5)
    rows, facts = cost.predicted(replace(small, scales=(replace(small.scales[1], blocks=4),)), (3, 8, 8), get("numpy", "float32"))
    assert [(row["block"], row["blocks"]) for row in rows] == [("3–1–3 on 12×4×4, 12 channels", 4)]
    row = rows[0]
    assert facts["seconds a step"] == pytest.approx(4 * (row["s of products"] + row["of the rest"] + row["of a proof"] / 3))
    assert facts["hours"] == pytest.approx(facts["seconds a step"] * 5 / 3600.0)
    assert facts["GB of memory"] > 4 * row["GB kept"] > 0.0


def test_a_training_on_a_device_asks_the_host_for_nothing_between_two_proofs(images: ModuleType) -> None:
    """On the stand-in for CuPy, whose transfers are counted."""
    import cupy

    from iresnet_backends import get

    small, shape = small_recipe(paper("_recipes"), 5), (3, 16, 16)
    pixels = np.random.default_rng(0).integers(0, 256, (16, *shape)).astype(float)
    counter, seen = cupy.counter, []

    def each(state: Any) -> None:
        seen.append((counter.syncs, counter.downloaded, counter.uploaded))

    state = images.train(small, pixels, 256, get("cupy:0", "float32").asarray(np.zeros(1)), each=each)
    syncs, downloaded, uploaded = (np.diff([row[i] for row in seen]) for i in range(3))
    assert syncs[[0, 1, 3, 4]].tolist() == [0] * 4 == downloaded[[0, 1, 3, 4]].tolist()
    weights = sum(4 * p.size for k, p in state.normalised.parameters().items() if k.endswith("weight"))
    warm = sum(4 * w.vectors.size for of_block in state.normalised.warm.values() for w in of_block.values() if w.vectors is not None)
    assert downloaded[2] >= weights, "the proof sees every weight"
    assert downloaded[2] <= weights + warm + 8 * syncs[2], "and the vectors of the proof before, and numbers"
    images_and_probes = 4 * 8 * 768 * (1 + 3)
    assert images_and_probes <= uploaded[1] <= images_and_probes + 3 * 64 * 8, "and for each block some lengths and places"


@pytest.mark.thorough
def test_the_memory_counted_without_numbers_is_that_of_the_arrays(images: ModuleType) -> None:
    import cupy

    from iresnet_backends import get

    cost, recipes = paper("_image_cost"), paper("_recipes")
    small, shape = small_recipe(recipes, 2), (3, 16, 16)
    pixels = np.random.default_rng(0).integers(0, 256, (16, *shape)).astype(float)
    counter, peaks, before = cupy.counter, [], cupy.counter.used

    def each(state: Any) -> None:
        peaks.append(counter.peak)
        counter.peak = counter.used

    state = images.train(small, pixels, 256, get("cupy:0", "float32").asarray(np.zeros(1)), each=each)
    weights = sum(4 * p.size for k, p in state.normalised.parameters().items() if k.endswith("weight"))
    kept = besides = 0
    for _, count, make, event in cost.kinds(small, shape, get("torch:cpu", "float32").asarray(np.zeros(1))):
        begun = cost.begun(make(), event, small, 3)
        one, two = (cost.step_count(cost.repeated(begun, n), event, small).peak for n in (1, 2))
        kept, besides = kept + count * (two - one), max(besides, 2 * one - two)
    peak = peaks[2] - before
    assert abs(peak - kept - besides) <= 4 * weights, "what the last proof keeps: weights, moments, an average"


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "cifar10-small", "bias"])
def test_every_recipe_is_read(images: ModuleType, name: str) -> None:
    found = images._recipes.read(name)
    assert images._recipes.options(found.training, found.lipschitz).logdet.name == "roulette"
    assert found.scales


def test_an_unknown_word_in_a_recipe_is_refused(images: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text('data = "digits"\nlipshitz = 0.9\n[training]\nsteps = 1\nbatch = 2\nlearning_rate = 0.1\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected of Recipe .* got \['lipshitz'\]"):
        images._recipes.read(str(path))
    with pytest.raises(ValueError, match="expected one of bias, cifar10, cifar10-small, digits, mnist, or a file, got nothing"):
        images._recipes.read("nothing")
