"""Laws of the residual block as a module: the reference's numbers bit for bit, and what torch expects of a module."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch

import iresnet_ref as ir
from iresnet_backends import FormatError, torch_layers
from iresnet_ref.errors import IResNetError

torch.set_num_threads(1)
L = 0.8
BRANCHES = {
    "mlp": lambda: ir.mlp((3, 8, 8, 3), activation="elu", lipschitz=L, seed=1),
    "convolutional": lambda: ir.convnet((2, 3, 3), channels=3, lipschitz=L, seed=1),
    "densely connected": lambda: ir.densenet(3, depth=2, growth=4, lipschitz=L, seed=1),
    "sandwich": lambda: ir.sandwich((3, 8, 3), activation="elu", lipschitz=L, seed=1),
    "∞-norm": lambda: ir.mlp((3, 8, 3), lipschitz=L, norm=float("inf"), seed=1),
}
METHODS = {
    "exact": ir.Exact(),
    "series": ir.Series(5, probes=ir.Probes(seed=3)),
    "roulette": ir.Roulette(probes=ir.Probes(seed=3, count=2)),
    "auto": ir.Auto(),
}
WEIGHTS = (0.0, -2.5, 1.0, 1e-3, 7.0)


def block(name: str = "mlp", factor: float = 1.5, **options: Any) -> Any:
    """A block of raw weights above their share (`factor` > 1) or below it."""
    made = torch_layers.ResidualBlock(BRANCHES[name](), lipschitz=L, **options)
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(factor)
    return made


def rows(made: Any, n: int = 5, seed: int = 0) -> Any:
    return torch.randn(n, *made.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weights_of(made: Any) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in made.branch.tensors().items()}


@pytest.mark.parametrize("factor", [0.5, 1.5])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", BRANCHES)
def test_values_and_gradients_are_the_references_bit_for_bit(name: str, method: str, factor: float) -> None:
    made = block(name, factor)
    x, options = rows(made).requires_grad_(), ir.Options(logdet=METHODS[method])
    c, w = rows(made, seed=1), torch.tensor(WEIGHTS, dtype=torch.float64)
    y, log_det = made(x, options=options)
    ((c * y).sum() + (w * log_det).sum()).backward()

    given = BRANCHES[name]().with_parameters(weights_of(made))
    raw = None if isinstance(given, ir.SandwichBranch) else ir.NormalisedBranch(given, L)
    F = ir.ResidualBlock(given if raw is None else raw.branch)
    value, of_reference = ir.bijections.Residual(F).forward(x.detach(), options=options)
    gradient = ir.logdet_gradient(F, x.detach(), METHODS[method], weights=w, y_bar=c)
    assert torch.equal(y, value)
    assert torch.equal(log_det, of_reference.value)  # log det itself, no surrogate
    assert torch.equal(x.grad, gradient.x_bar)
    own = gradient.parameters if raw is None else raw.pullback(gradient.parameters)
    assert all(torch.equal(p.grad, own[k]) for k, p in made.branch.tensors().items())


@pytest.mark.parametrize("name", BRANCHES)
def test_gradients_are_those_of_differences(name: str) -> None:
    """An oracle that is not the reference: `gradcheck` with its own step and tolerance, of both directions."""
    made = block(name)
    x = rows(made, 2).requires_grad_()
    y = made(x)[0].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: made(x), (x, *made.parameters()), fast_mode=True)
    # the inverse's rtol of 1e-12 over steps of 1e-6
    assert torch.autograd.gradcheck(lambda y, *_: made.inverse(y), (y, *made.parameters()), atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("name", BRANCHES)
def test_an_empty_batch_is_answered_and_has_no_gradient(name: str) -> None:
    made = block(name)
    x = rows(made, 0).requires_grad_()
    y, log_det = made(x)
    back, of_inverse = made.inverse(y)
    (y.sum() + log_det.sum() + back.sum() + of_inverse.sum()).backward()
    assert (y.shape, log_det.shape, back.shape, x.grad.shape) == (x.shape, (0,), x.shape, x.shape)
    assert all(not p.grad.any() for p in made.parameters())


def test_a_wrong_gradient_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the two tests above: the gradient of the divided weights is not that of the raw ones."""
    from iresnet_backends.torch_layers.certified import Made

    monkeypatch.setattr(Made, "to_raw", lambda self, gradients: [gradients[name] for name in self.block.branch.parameters()])
    made = block()
    with pytest.raises(RuntimeError, match="mismatch"):
        torch.autograd.gradcheck(lambda x, *_: made(x), (rows(made, 2).requires_grad_(), *made.parameters()), fast_mode=True)


def test_second_derivatives() -> None:
    made = block(factor=0.5)  # below their share nothing is divided
    x = rows(made, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, *_: made(x), (x, *made.parameters()), fast_mode=True)
    made = block(factor=1.5)
    assert torch.autograd.gradgradcheck(made, (x,), fast_mode=True)
    penalty = torch.autograd.grad(made(x)[1].sum(), x, create_graph=True)[0].square().sum()
    penalty.backward()  # a first derivative of the norm is enough
    assert all(p.grad is not None for p in made.parameters())
    gradient = torch.autograd.grad(made(x)[1].sum(), list(made.parameters()), create_graph=True)
    with pytest.raises(NotImplementedError, match="project_"):
        gradient[0].sum().backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own decompositions
def test_the_transforms_of_torch_func() -> None:
    made = block()
    x, parameters = rows(made), {k: p.detach() for k, p in made.named_parameters()}

    def loss(parameters: Any, x: Any) -> Any:
        y, log_det = torch.func.functional_call(made, parameters, (x,))
        return y.square().sum() - log_det.sum()

    whole = torch.func.grad(loss)(parameters, x)
    single = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x[:, None])
    u = torch.finfo(torch.float64).eps
    for k, g in whole.items():  # sums of 5 rows in another order
        torch.testing.assert_close(single[k].sum(0), g, rtol=0, atol=64 * u * float(single[k].abs().sum(0).max()))
    reverse, forward = (transform(lambda x: made(x[None])[0][0])(x[0]) for transform in (torch.func.jacrev, torch.func.jacfwd))
    torch.testing.assert_close(reverse, forward, rtol=0, atol=64 * u)  # entries below 2
    torch.testing.assert_close(torch.linalg.slogdet(reverse)[1], made(x[:1])[1][0], rtol=0, atol=64 * u / (1 - L))
    hessian = torch.func.jacrev(torch.func.jacrev(lambda x: made(x[None])[1][0]))(x[0])
    torch.testing.assert_close(hessian, hessian.mT, rtol=0, atol=1e3 * u / (1 - L) ** 2)
    ensemble = torch.stack([x, 2 * x])
    assert torch.equal(torch.func.vmap(lambda x: made(x)[0])(ensemble)[1], made(2 * x)[0])


def test_what_is_kept_for_the_backward_pass_does_not_grow_with_the_terms() -> None:
    made = block()
    x = rows(made).requires_grad_()

    def kept(method: Any) -> list[tuple[int, ...]]:
        shapes: list[tuple[int, ...]] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(tuple(t.shape)) or t, lambda t: t):
            made(x, options=ir.Options(logdet=method))
        return shapes

    wanted = [tuple(x.shape), *(tuple(p.shape) for p in made.parameters())]
    assert all(kept(m) == wanted for m in (ir.Exact(), ir.Series(2), ir.Series(200), ir.Roulette(50.0)))


def test_frozen_parameters_and_unused_outputs() -> None:
    made = block()
    x = rows(made)
    made.branch.get_parameter("0.weight").requires_grad_(False)
    made(x)[1].sum().backward()
    assert made.branch.get_parameter("0.weight").grad is None
    assert made.branch.get_parameter("2.weight").grad is not None
    made.zero_grad()
    made(x)[0].sum().backward()  # y alone: no gradient of the log-determinant is taken
    F = made.reference()
    plain = F.pullback(x, y_bar=torch.ones_like(x))[2]
    assert torch.equal(made.branch.get_parameter("4.bias").grad, plain["4.bias"])


@pytest.mark.parametrize("through_data", [False, True])
def test_every_step_of_an_optimiser_is_proved(through_data: bool) -> None:
    made = block()
    x, adam = rows(made), torch.optim.Adam(made.parameters(), lr=0.5)
    for _ in range(3):
        adam.zero_grad()
        (made(x)[0].square().sum() - made(x)[1].sum()).backward()
        adam.step()
        if through_data:  # what version counters do not see
            for p in made.parameters():
                p.data.mul_(3.0)
        found = made.certificate()
        assert found.proved
        assert found.bound <= L
        jacobian = torch.func.jacrev(lambda x: made(x[None])[0][0])(x[0]) - torch.eye(3)
        assert float(torch.linalg.matrix_norm(jacobian.detach(), 2)) <= L


def test_of_a_sandwich_branch_nothing_is_projected() -> None:
    made = block("sandwich")
    before = weights_of(made)
    made.project_()
    assert all(torch.equal(before[name], p) for name, p in weights_of(made).items())
    assert made.certificate().bound == made.reference().contraction() == L
    assert isinstance(made.reference().branch, ir.SandwichBranch)


def test_project_keeps_the_block() -> None:
    made = block()
    x = rows(made)
    before = made(x)
    made.project_()
    after = made(x)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert not made._certified.at([p.detach() for p in made.parameters()]).is_divided


def test_draws_are_torchs_and_those_of_given_probes_are_the_references() -> None:
    made = block(options=ir.Options(logdet=ir.Roulette()))
    x = rows(made)
    torch.manual_seed(5)
    first, second = made(x)[1], made(x)[1]
    torch.manual_seed(5)
    assert torch.equal(made(x)[1], first)
    assert not torch.equal(first, second)
    given = ir.Options(logdet=ir.Roulette(probes=ir.Probes(seed=9)))
    state = torch.get_rng_state()
    assert torch.equal(made(x, options=given)[1], made(x, options=given)[1])
    exact = block()
    exact(x)
    assert torch.equal(torch.get_rng_state(), state)  # what is not random draws nothing


def test_a_recomputed_forward_pass_has_the_same_draws() -> None:
    made = block(options=ir.Options(logdet=ir.Roulette()))
    x = rows(made).requires_grad_()
    torch.manual_seed(1)
    torch.utils.checkpoint.checkpoint(made, x, use_reentrant=False)[1].sum().backward()
    gradient, x.grad = x.grad, None
    torch.manual_seed(1)
    made(x)[1].sum().backward()
    assert torch.equal(x.grad, gradient)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_and_files_hold_the_block(copied: Any) -> None:
    made = block()
    x = rows(made)
    other = copied(made)
    assert torch.equal(other(x)[1], made(x)[1])
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    fresh = block(factor=0.3)
    fresh(x)
    fresh.load_state_dict(torch.load(file))  # weights alone, no pickled code
    assert torch.equal(fresh(x)[1], made(x)[1])
    with torch.no_grad():
        next(other.parameters()).zero_()
    assert torch.equal(fresh(x)[1], made(x)[1])


def test_the_state_of_another_block_is_refused() -> None:
    state = block().state_dict()
    other = torch_layers.ResidualBlock(ir.mlp((3, 8, 8, 3), activation="tanh", lipschitz=L), lipschitz=L)
    with pytest.raises((FormatError, RuntimeError), match="elu"):
        other.load_state_dict(state)
    looser = torch_layers.ResidualBlock(BRANCHES["mlp"](), lipschitz=0.9)
    with pytest.raises((FormatError, RuntimeError), match=r"expected 0\.9, got 0\.8"):
        looser.load_state_dict(state)


def test_dtypes_and_autocast() -> None:
    made = block().float()
    x = rows(made).float()
    assert made(x)[0].dtype == made.inverse(x)[1].dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, log_det = made(x)
        narrow = made(x.bfloat16())[0]  # what a layer before it makes under autocast
    assert torch.equal(y, made(x)[0])
    assert torch.equal(log_det, made(x)[1])
    assert narrow.dtype == torch.float32
    with pytest.raises(IResNetError, match="dtype"):
        made(x.double())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler hides it, unless warnings are errors
def test_a_compiled_model_calls_the_block_between_two_graphs() -> None:
    made = block()
    model = torch.nn.Sequential(torch.nn.Linear(3, 3).double(), made)
    compiled = torch.compile(model, backend="eager")
    x = rows(made)
    y, log_det = compiled(x)
    assert torch.equal(y, model(x)[0])
    log_det.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_sizes_make_a_block_that_torchs_seed_determines() -> None:
    torch.manual_seed(0)
    one, other = torch_layers.ResidualBlock((2, 8, 2)), torch_layers.ResidualBlock((2, 8, 2))
    torch.manual_seed(0)
    again = torch_layers.ResidualBlock((2, 8, 2))
    assert next(one.parameters()).dtype == torch.get_default_dtype()
    assert torch.equal(next(one.parameters()), next(again.parameters()))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_a_branch_without_a_bound_is_refused() -> None:
    square = ir.activations.Activation("square", lambda z: z * z, lambda z: 2 * z, lambda z: 2 + 0 * z, float("inf"))
    branch = ir.Branch((*ir.mlp((2, 4, 2)).layers, ir.layers.Pointwise(square)), (2,))
    with pytest.raises(ir.NotContractiveError, match="Lip"):
        torch_layers.ResidualBlock(branch)


def _rank(rank: int, file: str, x: Any, wanted: dict[str, Any]) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    made = block()
    parallel = torch.nn.parallel.DistributedDataParallel(made)
    half = x[rank::2]
    for _ in range(2):  # twice: the second pass finds the first one's proof
        made.zero_grad()
        y, log_det = parallel(half)
        (y.square().sum() - log_det.sum()).backward()
    for name, p in made.named_parameters():  # DDP takes the mean over ranks: half the sum
        torch.testing.assert_close(2 * p.grad, wanted[name], rtol=1e-12, atol=1e-12)
    torch.distributed.destroy_process_group()


@pytest.mark.thorough
def test_two_processes_train_it_together(tmp_path: Any) -> None:
    made = block()
    x = rows(made, 6)
    y, log_det = made(x)
    (y.square().sum() - log_det.sum()).backward()
    wanted = {name: p.grad for name, p in made.named_parameters()}
    torch.multiprocessing.start_processes(_rank, (str(tmp_path / "meet"), x, wanted), nprocs=2, start_method="spawn")
