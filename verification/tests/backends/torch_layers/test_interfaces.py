"""A flow of another package with a block of ours inside trains, samples, saves and loads, and its density integrates to one."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch_layer_subjects import noisy

import iresnet_ref as ir
from iresnet_backends import torch_layers
from iresnet_verify import Subject, adapters, audit

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore")  # what the packages warn about is theirs


@dataclass
class Model:
    """A flow of a package: what trains, log p(x), n samples, and the object around one block that its adapter calls."""

    module: Any
    log_prob: Callable[[Any], Any]
    sample: Callable[[int], Any]
    wrapped: Any


NEAR = ir.Options(rtol=2.0**-45)
"""256u: normflows' forward is our inverse, and within a looser tolerance a row depends on which others there are."""


def block(seed: int, **options: Any) -> Any:
    """A block away from σ = c, where fresh weights stand and the gradient of σ/c has two sides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return noisy(torch_layers.ResidualBlock(ir.mlp((2, 8, 2), seed=seed), **options))


def of_nflows() -> Model:
    pytest.importorskip("nflows")
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import CompositeTransform, ReversePermutation

    flow = Flow(CompositeTransform([block(0), ReversePermutation(2), block(1)]), StandardNormal([2])).double()

    def sample(n: int) -> Any:  # it draws noise of torch's default dtype, whatever its own
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return flow.sample(n)
        finally:
            torch.set_default_dtype(before)

    return Model(flow, flow.log_prob, sample, block(0))


def of_normflows() -> Model:
    nf = pytest.importorskip("normflows")
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(2), [nf.flows.Reverse(block(k, options=NEAR)) for k in (0, 1)]).double()
    return Model(flow, flow.log_prob, lambda n: flow.sample(n)[0], nf.flows.Reverse(block(0, options=NEAR)))


def of_zuko() -> Model:
    zuko = pytest.importorskip("zuko")
    base = zuko.lazy.UnconditionalDistribution(zuko.distributions.DiagNormal, torch.zeros(2), torch.ones(2), buffer=True)
    flow = zuko.lazy.Flow([torch_layers.AsTransform(block(k)) for k in (0, 1)], base).double()
    return Model(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)), torch_layers.AsTransform(block(0))())


def of_torch() -> Model:
    transforms = torch.nn.ModuleList([torch_layers.AsTransform(block(k)) for k in (0, 1)])
    normal = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))

    def distribution() -> Any:
        return torch.distributions.TransformedDistribution(normal, [t().inv for t in reversed(transforms)])

    return Model(transforms, lambda x: distribution().log_prob(x), lambda n: distribution().sample((n,)), transforms[0]())


def of_freia() -> Model:
    framework = pytest.importorskip("FrEIA.framework")
    flow = framework.SequenceINN(2)
    for k in (0, 1):
        flow.append(torch_layers.AsInvertibleModule, layer=block(k))
    flow = flow.double()
    normal = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))

    def log_prob(x: Any) -> Any:
        z, log_det = flow(x)
        return normal.log_prob(z) + log_det

    return Model(flow, log_prob, lambda n: flow(normal.sample((n,)), rev=True)[0], torch_layers.AsInvertibleModule([(2,)], layer=block(0)))


MODELS = {"nflows": of_nflows, "normflows": of_normflows, "zuko": of_zuko, "torch.distributions": of_torch, "FrEIA": of_freia}


@pytest.mark.parametrize("name", MODELS)
def test_it_trains_samples_saves_and_loads(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    x = torch.randn(64, 2, dtype=torch.float64) @ torch.tensor([[1.5, 0.5], [0.0, 0.4]], dtype=torch.float64) + 0.5
    adam = torch.optim.Adam(model.module.parameters(), lr=0.02)
    losses = []
    for _ in range(10):
        adam.zero_grad()
        loss = -model.log_prob(x).mean()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    assert all(p.grad is not None for part in blocks(model.module) for p in part.parameters())
    assert all(part.certificate().bound <= 0.9 for part in blocks(model.module))
    drawn = model.sample(6)
    assert drawn.shape == (6, 2)
    assert bool(drawn.isfinite().all())
    file = io.BytesIO()
    torch.save(model.module.state_dict(), file)
    file.seek(0)
    fresh = MODELS[name]()
    fresh.module.load_state_dict(torch.load(file))
    assert torch.equal(fresh.log_prob(x), model.log_prob(x))


def blocks(module: Any) -> list[Any]:
    found = [part for part in module.modules() if isinstance(part, torch_layers.ResidualBlock)]
    assert len(found) == 2
    return found


@pytest.mark.parametrize("name", MODELS)
def test_its_density_integrates_to_one(name: str) -> None:
    model = MODELS[name]()
    subject = Subject(name=name, event_shape=(2,), forward=lambda x: x, log_prob=model.log_prob, module=model.module)
    report = audit(subject, seed=0, budget="quick", select=["density.integrates-to-one"])
    assert [c.status for c in report.checks] == ["passed"]


@pytest.mark.thorough
@pytest.mark.parametrize("name", MODELS)
def test_the_audit_finds_nothing_in_a_wrapped_block(name: str) -> None:
    wrapped = MODELS[name]().wrapped
    module = wrapped.layer if isinstance(wrapped, torch.distributions.Transform) else wrapped
    fields = {"module": module, "framework": "torch"} if module is not wrapped else {}
    report = audit(adapters.recognise(wrapped, (2,), **fields), seed=0, budget="quick")
    if name == "normflows":  # its forward is our inverse, whose second derivatives are refused: gradients of the log-det stay open
        assert {c.family for c in report.checks if c.status not in ("passed", "skipped")} <= {"gradient"}
        assert not [c.id for c in report.checks if c.status in ("failed", "error")]
    else:
        assert report.status == "passed", [(c.id, c.message) for c in report.checks if c.status not in ("passed", "skipped")]


def test_a_transform_takes_any_number_of_batch_axes_and_a_context() -> None:
    steps = [ir.bijections.ContextShift.random((2,), 3), ir.ResidualBlock(ir.mlp((2, 8, 2)))]
    flow = torch_layers.Flow(ir.Flow(steps))
    h = torch.randn(4, 3, dtype=torch.float64)
    transform = torch_layers.AsTransform(flow)(h)
    x = torch.randn(5, 4, 2, dtype=torch.float64)
    y, ladj = transform.call_and_ladj(x)
    one = flow(x[2], h)
    assert torch.equal(y[2], one[0])
    assert torch.equal(ladj[2], one[1])
    assert torch.equal(transform.log_abs_det_jacobian(x, y), ladj)
    assert float((transform.inv(y) - x).detach().abs().max()) < 1e-9
    assert torch_layers.AsTransform(flow.steps[1])()(x[0, 0]).shape == (2,)
