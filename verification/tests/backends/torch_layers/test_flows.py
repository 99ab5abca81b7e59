"""Laws of flows as modules: the reference's densities, samples, gradients and trainings."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch_layer_subjects import actnorm, images, planar

import iresnet_ref as ir
from iresnet_backends import FormatError, torch_layers
from iresnet_ref import bijections, rounding, training

torch.set_num_threads(1)
FLOWS = {"planar": planar, "images": images}
METHODS = {"exact": ir.Exact(), "roulette": ir.Roulette(probes=ir.Probes(seed=3)), "series": ir.Series(4, probes=ir.Probes(seed=1))}


def made(name: str, **options: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FLOWS[name](**options)


def rows(flow: Any, n: int = 5, seed: int = 0) -> Any:
    return torch.randn(n, *flow.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(a: Any, b: Any, operations: int) -> None:
    """Two orders of one computation: `operations` roundings of numbers of the size of the largest."""
    scale = max(1.0, float(b.detach().abs().max()))
    torch.testing.assert_close(a, b, rtol=0.0, atol=rounding.gamma(operations, 2.0**-53) * scale)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FLOWS)
def test_densities_and_gradients_are_the_references(name: str, method: str) -> None:
    flow, options = made(name), ir.Options(logdet=METHODS[method])
    x, w = rows(flow), torch.tensor([1.0, -2.0, 0.0, 3.0, 0.5], dtype=torch.float64)
    reference = flow.reference()
    log_prob = flow.log_prob(x.requires_grad_(), options=options)
    assert torch.equal(log_prob, reference.log_prob(x.detach(), options=options).value)
    (w * log_prob).sum().backward()
    x_bar, gradients = reference.log_prob_gradient(x.detach(), weights=w, options=options)
    close(x.grad, x_bar, 4096)  # rows of at most 36 numbers through five steps of a few hundred operations
    raw = training.NormalisedModel(raw_flow(flow), 0.9)
    assert torch.equal(raw.model.log_prob(x.detach(), options=options).value, log_prob)
    wanted = raw.pullback(gradients)
    for key, gradient in wanted.items():
        close(parameter(flow, key).grad, gradient, 4096)


def parameter(flow: Any, key: str) -> Any:
    """The parameter of the module that the reference calls `key`, "1.0.weight"."""
    number, _, rest = key.partition(".")
    step = flow.steps[int(number)]
    while not isinstance(step, torch_layers.ResidualBlock | torch_layers.Bijection):
        number, _, rest = rest.partition(".")
        step = step.rest.steps[int(number)]
    return step.get_parameter(f"{'branch' if isinstance(step, torch_layers.ResidualBlock) else 'weights'}.{rest}")


def raw_flow(flow: Any) -> ir.Flow:
    """The reference's flow of the raw weights."""
    reference = flow.reference()
    return reference.with_parameters({key: parameter(flow, key).detach().clone() for key in reference.parameters()})


@pytest.mark.parametrize("name", FLOWS)
def test_the_inverse_undoes_the_flow(name: str) -> None:
    flow = made(name)
    x = rows(flow)
    z, log_det = flow(x)
    back, of_inverse = flow.inverse(z)
    x_of_reference = flow.reference().inverse(z, options=ir.Options(rtol=2.0 ** (-53 * 0.75)))
    assert bool((torch.linalg.vector_norm((back - x).flatten(1), dim=1) <= x_of_reference.error_bound + 1e-9).all())
    assert float((log_det + of_inverse).detach().abs().max()) < 1e-8  # the inverse's own error, times the slope of the log-det


@pytest.mark.parametrize("name", FLOWS)
def test_rebuilt_activations_give_the_same_gradient(name: str) -> None:
    kept, rebuilt = made(name), made(name, rebuild=True)
    x, y = (rows(kept).requires_grad_() for _ in range(2))
    options = ir.Options(logdet=METHODS["roulette"], rtol=1e-13)
    kept.log_prob(x, options=options).sum().backward()
    rebuilt.log_prob(y, options=options).sum().backward()
    torch.testing.assert_close(y.grad, x.grad, rtol=1e-8, atol=1e-8)  # rtol 1e-13 of every activation, amplified
    for p, q in zip(kept.parameters(), rebuilt.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-8, atol=1e-8)
    rebuilt.zero_grad()
    torch.manual_seed(3)
    random = torch_layers.Flow(raw_flow(rebuilt), options=ir.Options(logdet=ir.Roulette()), rebuild=True)
    torch.autograd.grad(random.log_prob(x).sum(), list(random.parameters()))  # draws once, in the forward pass
    after = torch.get_rng_state()
    torch.manual_seed(3)
    random.log_prob(x)
    assert torch.equal(torch.get_rng_state(), after)


def test_second_derivatives_of_a_rebuilt_flow() -> None:
    kept, rebuilt = made("planar"), made("planar", rebuild=True)
    x = rows(kept, 3).requires_grad_()
    found = []
    for flow in (kept, rebuilt):
        score = torch.autograd.grad(flow.log_prob(x, options=ir.Options(rtol=1e-13)).sum(), x, create_graph=True)[0]
        found.append(torch.autograd.grad(score.square().sum(), [x, *flow.parameters()]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_what_a_rebuilt_flow_keeps_does_not_grow_with_its_depth() -> None:
    def activations(depth: int, *, rebuild: bool) -> int:
        steps = [ir.ResidualBlock(ir.mlp((2, 4, 2), seed=k)) for k in range(depth)]
        flow = torch_layers.Flow(ir.Flow(steps), rebuild=rebuild)
        x, sizes = rows(flow, 64), list[int]()
        own = {p.data_ptr() for p in flow.parameters()}
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t: (sizes.append(0 if t.data_ptr() in own else t.numel()), t)[1], lambda t: t)
        with hooks:
            flow(x.requires_grad_())
        return sum(sizes)

    assert activations(2, rebuild=True) == activations(8, rebuild=True) == 128
    assert activations(8, rebuild=False) >= 8 * 128


def test_samples_are_the_references_and_have_gradients() -> None:
    flow = made("planar")
    options = ir.Options(rtol=1e-12)
    drawn = flow.sample(4, seed=7, options=options)
    torch.testing.assert_close(drawn, flow.reference().sample(4, seed=7, options=options), rtol=1e-10, atol=1e-10)
    assert not torch.equal(flow.sample(4), flow.sample(4))
    drawn.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in flow.parameters())


def test_actnorm_waits_for_its_batch_and_loading_never_makes_it_wait_again() -> None:
    flow = torch_layers.Flow(ir.Flow([bijections.ActNorm.uninitialised((2,)), ir.ResidualBlock(ir.mlp((2, 4, 2)))]))
    x = 3.0 + 2.0 * rows(flow, 64)
    with pytest.raises(ValueError, match="initialise"):
        flow(x)
    flow.initialise(x)
    close(flow.steps[0](x)[0].mean(0), torch.zeros(2, dtype=torch.float64), 4096)
    before = flow.log_prob(x)
    flow.initialise(x + 5.0)
    assert torch.equal(flow.log_prob(x), before)
    file = io.BytesIO()
    torch.save(flow.state_dict(), file)
    file.seek(0)
    fresh = torch_layers.Flow(ir.Flow([bijections.ActNorm.uninitialised((2,)), ir.ResidualBlock(ir.mlp((2, 4, 2), seed=3))]))
    fresh.load_state_dict(torch.load(file))
    fresh.initialise(x + 5.0)
    assert torch.equal(fresh.log_prob(x), before)
    used = torch_layers.Flow(ir.Flow([actnorm((2,)), ir.ResidualBlock(ir.mlp((2, 4, 2)))]))
    used(x)
    waiting = torch_layers.Flow(ir.Flow([bijections.ActNorm.uninitialised((2,)), ir.ResidualBlock(ir.mlp((2, 4, 2)))]))
    used.load_state_dict(waiting.state_dict())
    with pytest.raises(ValueError, match="initialise"):
        used(x)


def test_the_state_of_another_permutation_is_refused() -> None:
    one, other = (torch_layers.layer(bijections.Permutation((3,), order)) for order in ((2, 0, 1), (1, 2, 0)))
    with pytest.raises((FormatError, RuntimeError), match=r"order\.0"):
        other.load_state_dict(one.state_dict())


def test_a_context_conditions_every_step_that_takes_one() -> None:
    steps = [bijections.ContextShift.random((2,), 3), ir.ResidualBlock(ir.mlp((2, 8, 2)))]
    for rebuild in (False, True):
        flow = torch_layers.Flow(ir.Flow(steps), rebuild=rebuild)
        x, h = rows(flow), torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
        log_prob = flow.log_prob(x, h)
        reference = flow.reference().condition(h.detach())
        assert torch.equal(log_prob, reference.log_prob(x).value)
        gradient = torch.autograd.grad(log_prob.sum(), h)[0]
        torch.testing.assert_close(gradient, reference.log_prob_gradient(x)[1]["0.context"], rtol=1e-9, atol=1e-9)
        assert flow.sample(5, h).shape == (5, 2)


STEPS = 100


def test_a_training_in_torch_is_that_of_the_reference() -> None:
    """The same losses and weights as `ir.training.fit`, to rounding that a hundred steps of AdamW have amplified."""
    data = np.random.default_rng(3).standard_normal((256, 2)) * np.asarray([2.0, 0.3]) + np.asarray([1.0, -1.0])
    blocks = [ir.ResidualBlock(ir.mlp((2, 8, 2), seed=k)) for k in range(2)]
    raw = ir.Flow([bijections.ActNorm.uninitialised((2,)), *blocks]).initialise(data[:32])
    settings = training.Settings(learning_rate=0.01, weight_decay=1e-2)
    losses: list[float] = []

    def batch(step: int) -> Any:
        return data[training.minibatch(len(data), 64, step, seed=5)]

    state = training.fit(
        training.start(raw, lipschitz=0.8, settings=settings),
        lambda flow, step: training.maximum_likelihood(flow, batch(step), step=step), STEPS, callback=lambda _, loss: losses.append(loss),
    )
    flow = torch_layers.Flow(raw, lipschitz=0.8)
    adam = torch.optim.AdamW(flow.parameters(), lr=0.01, weight_decay=1e-2)
    for step in range(STEPS):
        loss = -flow.log_prob(torch.tensor(batch(step))).mean()
        assert abs(loss.item() - losses[step]) <= amplified(step)
        adam.zero_grad()
        loss.backward()
        adam.step()
    for key, p in state.normalised.parameters().items():
        assert float((parameter(flow, key).detach() - torch.tensor(p)).abs().max()) <= amplified(STEPS)
    assert losses[-1] < losses[0] - 0.1
    assert all(c.bound <= 0.8 for c in flow.certificates().values())


def amplified(step: int) -> float:
    """Rounding after so many steps: 4096 roundings a gradient; AdamW divides a gradient by its own size, at least ε = 1e-8 of it early."""
    return rounding.gamma(4096, 2.0**-53) * 10.0 * (step + 1)
