"""Laws of the Gaussian mixture as a base, and of the hybrid loss of a density and a classifier in one network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from autodiff_oracles import assert_gradients, torch_branch, torch_layers, torch_logdets
from tables import backend

import iresnet_ref as ir
from iresnet_backends import load, save
from iresnet_ref.arrays import from_host, to_host
from iresnet_ref.training.loop import Settings, fit, start
from iresnet_ref.training.losses import hybrid, maximum_likelihood

RNG = np.random.default_rng(11)
X, LABELS = RNG.standard_normal((9, 2)) * 1.5, RNG.integers(3, size=9)
MEANS, LOG_SCALE, LOGITS = RNG.standard_normal((3, 2)) * 2.0, np.asarray([-0.4, 0.3]), np.asarray([0.5, -1.0, 0.2])


def mixture(like: Any = None) -> ir.densities.GaussianMixture:
    return ir.densities.GaussianMixture(*(from_host(a, np.zeros(1) if like is None else like) for a in (MEANS, LOG_SCALE, LOGITS)))


def flow(like: Any = None) -> ir.Flow:
    branches = [ir.mlp((2, 8, 2), lipschitz=0.8, seed=i, like=like) for i in (1, 2)]
    return ir.Flow([ir.ResidualBlock(branch) for branch in branches], mixture(like))


def torch_joint(z: Any, means: Any, log_scale: Any, logits: Any) -> Any:
    import torch

    each = torch.distributions.Normal(means[None], torch.exp(log_scale)).log_prob(z[:, None]).sum(2)
    return each + torch.log_softmax(logits, 0)


def test_density_and_posterior_are_those_of_torchs_mixture() -> None:
    import torch
    from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

    means, log_scale, logits = (torch.tensor(a) for a in (MEANS, LOG_SCALE, LOGITS))
    truth = MixtureSameFamily(Categorical(logits=logits), Independent(Normal(means, torch.exp(log_scale).expand(3, 2)), 1))
    base, z = mixture(), np.concatenate([X, 60.0 * X])  # far away every density underflows, their logarithms do not
    assert np.allclose(base.log_prob(z), truth.log_prob(torch.tensor(z)).numpy(), rtol=1e-13)
    posterior = torch.softmax(torch_joint(torch.tensor(z), means, log_scale, logits), 1).numpy()
    assert np.allclose(base.posterior(z), posterior, rtol=1e-10, atol=1e-15)
    for y in range(3):
        weight = math.exp(LOGITS[y]) / np.exp(LOGITS).sum()
        assert np.allclose(base.joint(z)[:, y], math.log(weight) + base.component(y).log_prob(z), rtol=1e-13)


# log p(y|z) − log p(0|z) is linear in z since the scales are shared.
def test_the_posterior_is_a_linear_classifier() -> None:
    def odds(z: Any) -> Any:
        joint = mixture().joint(z)
        return joint[:, 1:] - joint[:, :1]

    middle = odds(0.5 * (X[:4] + X[4:8]))
    assert np.allclose(middle, 0.5 * (odds(X[:4]) + odds(X[4:8])), atol=1e-12)


# Classes by their weights, each class by its Gaussian: counts within 5 σ (false alarm 3·6e-7), moments within 5 standard errors.
def test_samples_follow_the_mixture() -> None:
    apart = np.asarray([[-40.0, 0.0], [0.0, 40.0], [40.0, 0.0]])
    n = 6000
    z = ir.densities.GaussianMixture(apart, LOG_SCALE, LOGITS).sample(n, seed=3)
    nearest = np.argmin(((z[:, None] - apart) ** 2).sum(2), axis=1)
    weights = np.exp(LOGITS) / np.exp(LOGITS).sum()
    counts = np.bincount(nearest, minlength=3)
    assert np.all(np.abs(counts - n * weights) < 5.0 * np.sqrt(n * weights * (1.0 - weights)))
    noise = (z - apart[nearest]) / np.exp(LOG_SCALE)
    assert np.all(np.abs(noise.mean(0)) < 5.0 / math.sqrt(n))
    assert np.all(np.abs((noise**2).mean(0) - 1.0) < 5.0 * math.sqrt(2.0 / n))
    few = mixture().sample(5, seed=3)
    assert np.array_equal(few, mixture().sample(50, seed=3)[:5])
    assert not np.array_equal(few, mixture().sample(5, seed=4))


def test_gradients_of_the_mixture_are_autograds() -> None:
    import torch

    w = np.linspace(-1.0, 1.0, 9)
    leaves = [torch.tensor(a, requires_grad=True) for a in (X, MEANS, LOG_SCALE, LOGITS)]
    total = (torch.tensor(w) * torch.logsumexp(torch_joint(*leaves), 1)).sum()
    z_bar, *others = (g.numpy() for g in torch.autograd.grad(total, leaves))
    truth = (z_bar, dict(zip(("means", "log_scale", "logits"), others, strict=True)))
    assert_gradients(mixture().pullback(X, w), truth)


def weights_of(case: str) -> tuple[float, Any, Any]:
    """(λ, a, w); "few labels": three rows have a label, all count for the density."""
    even = np.full(9, 1.0 / 9.0)
    return {
        "defaults": (1.0, None, None), "λ": (0.3, None, None), "λ = 0": (0.0, None, None),
        "rows": (0.7, np.linspace(-0.5, 1.0, 9), np.linspace(1.0, 0.1, 9)),
        "few labels": (1.0, even, np.where(np.arange(9) < 3, 1.0 / 3.0, 0.0)),
    }[case]  # fmt: skip


# Value and gradient of −Σ (λ a log p(x) + w log p(y|x)) are those of the same written anew in torch.
@pytest.mark.parametrize("case", ["defaults", "λ", "λ = 0", "rows", "few labels"])
def test_gradient_of_the_hybrid_is_autograds(case: str) -> None:
    import torch

    density, a, w = weights_of(case)
    model = flow()
    found = hybrid(model, X, LABELS, density=density, weights=a, label_weights=w)
    leaves = {k: torch.tensor(p, requires_grad=True) for k, p in model.parameters().items()}
    z, total = torch.tensor(X, requires_grad=True), 0.0
    for i in (0, 1):
        own = {k.removeprefix(f"{i}."): p for k, p in leaves.items() if k.startswith(f"{i}.")}
        g = torch_branch(torch_layers(model.steps.steps[i].block.branch, own))
        total = total + torch_logdets(g, z)
        z = z + g(z)
    joint = torch_joint(z, *(leaves[f"base.{k}"] for k in ("means", "log_scale", "logits")))
    rows, picked = torch.arange(9), torch.tensor(LABELS)
    even = np.full(9, 1.0 / 9.0)
    of_density, of_labels = (torch.tensor(even if b is None else b) for b in (a, w))
    log_p, log_posterior = torch.logsumexp(joint, 1) + total, torch.log_softmax(joint, 1)[rows, picked]
    value = -(density * of_density * log_p + of_labels * log_posterior).sum()
    gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    truth = {k: np.zeros(tuple(p.shape)) if g is None else g.numpy() for (k, p), g in zip(leaves.items(), gradients, strict=True)}
    assert math.isclose(float(found.value), value.item(), rel_tol=1e-12)
    assert_gradients((X, found.gradients), (X, truth))


def test_the_hybrid_loss_goes_from_the_likelihood_to_that_of_the_joint() -> None:
    model, nobody = flow(), np.zeros(9)
    alone, likelihood = hybrid(model, X, LABELS, label_weights=nobody), maximum_likelihood(model, X)
    assert math.isclose(float(alone.value), float(likelihood.value), rel_tol=1e-13)
    assert_gradients((X, alone.gradients), (X, likelihood.gradients))
    joint = np.mean(model.base.joint(model(X))[np.arange(9), LABELS] + model.forward(X)[1].value)
    assert math.isclose(float(hybrid(model, X, LABELS).value), -float(joint), rel_tol=1e-13)
    first = np.where(np.arange(9) < 5, 1.0, 0.0)
    others = np.where(first > 0.0, LABELS, (LABELS + 1) % 3)  # a row without weight may have any label
    assert hybrid(model, X, LABELS, label_weights=first).value == hybrid(model, X, others, label_weights=first).value


@pytest.mark.parametrize("key", ["torch-f64", "strict-device2-f64", "cupy-contract-1-f64"])
def test_losses_and_gradients_are_the_same_on_every_backend(key: str) -> None:
    like = backend(key).asarray(np.zeros(1))
    xp = ir.arrays.namespace(like)
    labels = xp.asarray(LABELS.tolist(), device=ir.arrays.device(like))
    ours, theirs = hybrid(flow(), X, LABELS, density=0.5), hybrid(flow(like), from_host(X, like), labels, density=0.5)
    assert abs(float(to_host(theirs.value)) - float(ours.value)) < 1e-12
    assert all(np.allclose(to_host(g), ours.gradients[k], atol=1e-12) for k, g in theirs.gradients.items())
    assert np.allclose(to_host(mixture(like).sample(7, seed=1)), mixture().sample(7, seed=1), atol=1e-12)


def test_a_hybrid_learns_both_and_is_saved(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    labels = (X[:, 0] * X[:, 1] > 0.0).astype(np.int64) + 2 * (np.abs(X[:, 0]) > 2.0)
    losses: list[float] = []
    state = start(flow(), settings=Settings(learning_rate=0.03))
    before = state.model.log_prob(X).value.mean()
    state = fit(state, lambda model, step: hybrid(model, X, np.minimum(labels, 2), density=0.2, step=step), 60,
                callback=lambda s, value: losses.append(value))
    model = state.model
    assert losses[-1] < 0.5 * losses[0]
    assert model.log_prob(X).value.mean() > before
    save(tmp_path / "flow.safetensors", model)
    again = load(tmp_path / "flow.safetensors")
    assert np.array_equal(again.base.posterior(again(X)), model.base.posterior(model(X)))
    assert again.steps.steps[0].block.certificate.bound <= 0.9


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ir.ShapeError, match="mixture: expected means"):
        ir.densities.GaussianMixture(np.zeros((3, 2)), np.zeros(2), np.zeros(4))
    with pytest.raises(ir.DTypeError, match="base is a GaussianMixture, got StandardGaussian"):
        hybrid(ir.Flow([ir.ResidualBlock(ir.mlp((2, 8, 2)))]), X, LABELS)
    with pytest.raises(ValueError, match="0 ≤ density < inf, got -1"):
        hybrid(flow(), X, LABELS, density=-1.0)
    with pytest.raises(ValueError, match="labels: expected 0 to 2"):
        hybrid(flow(), X, LABELS + 1)
    with pytest.raises(ir.ShapeError, match="one row for each of the 9"):
        hybrid(flow(), X, LABELS, weights=np.ones(8))
