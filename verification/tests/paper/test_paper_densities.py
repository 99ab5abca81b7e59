"""Smoke runs of examples/paper/densities_2d.py: every model learns a density that integrates to one, at equal size and budget."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from examples_of_the_paper import paper

from iresnet_backends import load

SMALL = ["--blocks", "2", "--width", "8", "--batch", "64", "--learning-rate", "0.02", "--samples", "200", "--panels", "16",
         "--seconds", "inf", "--no-figure"]  # fmt: skip


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return paper("densities_2d")


def one(folder: Path, model: str, density: str = "moons") -> dict[str, float]:
    (file,) = (folder / "densities_2d").glob(f"{density}-{model}-0-*.json")
    return json.loads(file.read_text("utf-8"))


@pytest.mark.thorough
@pytest.mark.parametrize(("backend", "steps"), [("numpy", 100), ("torch:cpu", 25)])
def test_our_flow_learns(example: ModuleType, backend: str, steps: int, tmp_path: Path) -> None:
    common = [*SMALL, "--backend", backend, "--only", "moons", "--models", "i-ResNet", "--folder"]
    for n in (1, steps):
        example.main([*common, str(tmp_path / str(n)), "--steps", str(n)])
    before, after = one(tmp_path / "1", "i-ResNet"), one(tmp_path / str(steps), "i-ResNet")
    spread = np.std(after["log_p"], ddof=1) / np.sqrt(len(after["log_p"]))
    assert after["nats"] < before["nats"] - 10.0 * spread
    assert abs(after["integral"] - 1.0) < 1e-3
    assert after["change"] < 1e-3
    assert after["lipschitz"] <= example.LIPSCHITZ
    assert after["steps"] == steps
    assert after["evaluations"] > 1.0
    kept = load(tmp_path / str(steps) / "models" / "densities_2d-moons.safetensors")  # for the audit of what was trained
    assert max(step.block.certificate.bound for step in kept.steps.steps if hasattr(step, "block")) == after["lipschitz"]


@pytest.mark.thorough
# The peers have our number of parameters, see shifted data in its own units, and are charged for what they evaluate.
@pytest.mark.parametrize(("model", "evaluations"), [("RealNVP", (1.0, 1.0)), ("Glow", (1.0, 1.0)), ("FFJORD", (8.0, np.inf))])
def test_peers_learn(example: ModuleType, model: str, evaluations: tuple[float, float]) -> None:
    peers = paper("_peers")
    options = example.options_of([*SMALL, "--steps", "12", "--tolerance", "0.01"])
    options.seconds = np.inf
    data = 0.5 * paper("_planar").moons(500, np.random.default_rng(0)) + 7.0
    learnt = peers.train(model, data, 9_780, options)
    options.learning_rate = 1e-9
    untrained = peers.train(model, data, 9_780, options)
    assert abs(learnt.parameters / 9_780 - 1.0) < 0.05
    assert learnt.steps == 12
    assert learnt.log_prob(data).mean() > untrained.log_prob(data).mean() + 0.05
    integral, change, _, _ = example.integrate(lambda x: np.exp(learnt.log_prob(x)), data.mean(0), 2.0 * data.std(0), 16, 1e-3)
    assert abs(integral - 1.0) < 1e-3 > change
    samples, calls = learnt.sample(500, 3)
    assert (np.abs(samples.mean(0) - 7.0) < 0.5).all()
    assert evaluations[0] <= calls <= evaluations[1]


@pytest.mark.thorough
def test_finished_runs_are_not_repeated_and_the_figure_is_drawn(example: ModuleType, tmp_path: Path) -> None:
    common = [*[a for a in SMALL if a != "--no-figure"], "--steps", "3", "--only", "rings,pinwheel", "--folder", str(tmp_path)]
    example.main([*common, "--models", "i-ResNet", "--part", "1", "--parts", "2"])
    (file,) = (tmp_path / "densities_2d").iterdir()
    assert file.name.startswith("pinwheel-i-ResNet-0-")
    file.write_text(json.dumps({**one(tmp_path, "i-ResNet", "pinwheel"), "nats": 12.5}))
    rows = example.main([*common, "--models", "i-ResNet"])
    assert [(row["density"], row["nats"] == "12.500") for row in rows] == [("rings", False), ("pinwheel", True)]
    other = example.main([*common, "--only", "pinwheel", "--models", "i-ResNet", "--zoom", "2", "--no-figure"])
    assert other[0]["nats"] != "12.500"  # another setting is another run
    assert (tmp_path / "densities_2d.png").read_bytes().startswith(b"\x89PNG")


def test_names_it_does_not_know_are_refused_before_anything_is_learnt(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "learn", lambda *_: pytest.fail("learnt before the names were read"))
    for wrong in (["--only", "moons,ring"], ["--models", "i-ResNet,MAF"]):
        with pytest.raises(SystemExit):
            example.main([*SMALL, *wrong, "--folder", str(tmp_path)])
        assert f"got {wrong[1].split(',')[1]}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_differences_are_paired(example: ModuleType) -> None:
    rng = np.random.default_rng(1)
    made = []
    for seed, worse in enumerate((0.1, 0.2, 0.3)):
        log_p = rng.normal(-2.0, 1.0, 400)
        for model, shift in (("i-ResNet", 0.0), ("RealNVP", worse)):
            made.append({"density": "moons", "model": model, "seed": seed, "nats": float(shift - log_p.mean()), "integral": 1.0,
                         "change": 0.0, "evaluations": 1.0, "lipschitz": 0.9, "steps": 1, "seconds": 1.0, "parameters": 1, "budget": 20.0,
                         "log_p": (log_p - shift).tolist()})  # fmt: skip
    assert example.table(made)[1]["minus i-ResNet in 20 s"] == "+0.200 ± 0.248"  # Student: 4.303·.1/√3
    one_seed = example.table([run for run in made if run["seed"] == 1])
    assert one_seed[1]["minus i-ResNet in 20 s"] == "+0.200 ± 0.000"  # the points are the same: their spread cancels
    assert one_seed[0]["minus i-ResNet in 20 s"] == "–"


def test_the_budget_ends_and_the_rate_falls(example: ModuleType) -> None:
    options = argparse.Namespace(steps=200, seconds=np.inf, learning_rate=0.1)
    found = list(example.rates(options))
    assert len(found) == 200
    assert np.argmax(found) == 19  # the end of the warm-up
    assert 0.09 < max(found) <= 0.1
    assert found[-1] < 0.001
    assert list(example.rates(argparse.Namespace(steps=200, seconds=0.0, learning_rate=0.1))) == []


def test_the_six_densities_lie_in_the_picture(example: ModuleType) -> None:
    assert list(example.DENSITIES) == ["eight_gaussians", "checkerboard", "moons", "rings", "two_spirals", "pinwheel"]
    for draw in example.DENSITIES.values():
        x = draw(4000, np.random.default_rng(1))
        assert x.shape == (4000, 2)
        assert np.isfinite(x).all()
        assert (np.abs(x) < 4.0).mean() > 0.999
