"""The trained models are audited; a training that divides by the wrong norm is caught."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from examples_of_the_paper import paper

import iresnet_ref as ir
from iresnet_ref.training.classifier import Classifier
from iresnet_ref.training.loop import fit, start
from iresnet_ref.training.losses import maximum_likelihood
from iresnet_verify import audit

pytest.importorskip("sklearn")
CHECKS = ["inverse.keeps-tolerance", "lipschitz.bounds-jacobian", "logdet.matches-determinant", "density.change-of-variables"]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    module = paper("misnormalised")
    setattr(module, "CACHE", tmp_path_factory.mktemp("cache"))  # noqa: B010  a name of a module
    setattr(module, "STEPS", 40)  # noqa: B010
    return module


@pytest.mark.thorough
def test_the_audit_tells_the_believed_norm_from_the_proved_one(wrong: ModuleType) -> None:
    for make, status in ((wrong.misnormalised, "failed"), (wrong.certified, "passed")):
        (found,) = audit(make(), budget="quick", select=["lipschitz.bounds-stretch"]).checks
        assert found.status == status, found.message


@pytest.mark.thorough
def test_both_learn_and_one_inverts(wrong: ModuleType, tmp_path: Path) -> None:
    believed, proved = wrong.main(["--folder", str(tmp_path), "--steps", str(wrong.STEPS)])
    for row in (believed, proved):
        assert float(row["training accuracy"].split()[0]) > 80.0
    assert believed["largest ‖J_g(x)‖₂ seen"] > 1.0 > wrong.CLAIMED >= proved["largest ‖J_g(x)‖₂ seen"]
    assert believed["largest error of the inverse"] > 1.0 > 1e9 * proved["largest error of the inverse"]
    assert (tmp_path / "misnormalised.json").exists()


def test_every_saved_model_becomes_subjects_that_pass(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    from iresnet_backends import save

    audited = paper("audited")
    with pytest.raises(FileNotFoundError, match=r"expected models in .* run make examples"):
        audited.models(tmp_path)
    flow = ir.Flow([ir.bijections.ActNorm.uninitialised((2,)), ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))]).initialise(np.eye(2))
    state = fit(start(flow), lambda model, step: maximum_likelihood(model, np.eye(2)), 2)
    save(tmp_path / "a.safetensors", state)
    steps = [ir.bijections.ZeroPad((1,), 2), ir.ResidualBlock(ir.mlp((3, 8, 3), lipschitz=0.5))]
    save(tmp_path / "b.safetensors", Classifier.with_zero_head(steps, 4))
    image = ir.bijections.FactorOut((4, 1, 1), [ir.ResidualBlock(ir.convnet((2, 1, 1), channels=3, kernels=(1, 1), lipschitz=0.5))])
    save(tmp_path / "c.safetensors", ir.Flow([ir.bijections.Logit((1, 2, 2), levels=17), ir.bijections.Squeeze((1, 2, 2)), image]))
    found = audited.models(tmp_path)
    assert [s.name for s in found] == [
        "a: flow", "a: block with the largest constant", "b: features", "b: block with the largest constant",
        "c: flow", "c: block with the largest constant",
    ]
    assert [s.event_shape for s in found] == [(2,), (2,), (3,), (3,), (1, 2, 2), (2, 1, 1)]
    for subject in found:
        checks = audit(subject, budget="quick", select=CHECKS).checks
        assert {c.status for c in checks} <= {"passed", "skipped"}, {c.id: c.message for c in checks}
        assert sum(c.status == "passed" for c in checks) >= 2


def test_large_models_become_torch_subjects_without_log_determinants() -> None:
    torch = pytest.importorskip("torch")
    audited, shape = paper("audited"), (1, 18, 18)
    block = ir.ResidualBlock(ir.convnet((4, 9, 9), channels=2, lipschitz=0.5))
    steps = [ir.bijections.Squeeze(shape), block]
    made = {"flow": ir.Flow(steps), "features": Classifier.with_zero_head(steps, 4)}
    for kind, model in made.items():
        whole, alone = audited.subjects("large", model)
        assert whole.name == f"large: {kind}"
        assert alone.lipschitz == block.certificate.bound
        for subject in (whole, alone):
            assert (subject.framework, subject.log_det, subject.log_prob) == ("torch", None, None)
            checks = audit(subject, budget="quick", select=[*CHECKS, "gradient.through-inverse"]).checks
            assert {c.status for c in checks} <= {"passed", "skipped"}, {c.id: c.message for c in checks}
            assert sum(c.status == "passed" for c in checks) == (3 if subject is alone else 2)
    narrow = ir.Flow(made["flow"].steps.with_parameters({k: p.astype(np.float32) for k, p in made["flow"].steps.parameters().items()}))
    assert audited.subjects("large", narrow)[0].forward(torch.zeros(1, *shape, dtype=torch.float64)).dtype == torch.float64


def test_images_are_drawn_at_the_scale_their_logit_takes() -> None:
    audited = paper("audited")
    for levels in (1, 17):
        steps = ir.bijections.Composition((ir.bijections.Logit((1, 8, 8), levels=levels),))
        x = audited.rows(steps, "digits")(50, np.random.default_rng(0))
        assert x.shape == (50, 1, 8, 8)
        assert 0.9 * levels < x.max() < levels
        assert 0.0 < x.min() < 0.01 * levels
    flow = ir.Flow([ir.bijections.Logit((1, 8, 8), levels=17), ir.ResidualBlock(ir.convnet((1, 8, 8), channels=2, lipschitz=0.5))])
    subject = audited.subjects("digits", flow)[0]
    x = subject.inputs(50, np.random.default_rng(0))
    assert x.min() < -2.0 < 2.0 < x.max()  # behind the logit
    y = flow.steps.steps[0].value(audited.rows(flow.steps, "digits")(50, np.random.default_rng(0)))
    assert np.array_equal(x, y)
    assert np.array_equal(subject.forward(x), flow.steps.steps[1].value(y))
