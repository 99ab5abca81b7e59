"""A torch module and the branch made of it agree number by number, and back."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import CONSTRUCTORS, backend

import iresnet_ref as ir
from iresnet_backends import from_torch, to_torch
from iresnet_backends.errors import ModuleError
from iresnet_backends.saving import load, save
from iresnet_ref.arrays import to_host
from iresnet_ref.layers.linear import LinearLayer
from iresnet_ref.layers.pointwise import Pointwise

torch = pytest.importorskip("torch")
nn = torch.nn
spectral_norm = nn.utils.parametrizations.spectral_norm


def seeded(build: Callable[[], Any]) -> Any:
    state = torch.get_rng_state()
    try:
        torch.manual_seed(1)
        return build().double()
    finally:
        torch.set_rng_state(state)


class Sine(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    def forward(self, x: Any) -> Any:
        return torch.sin(x)


NETS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "elu": (lambda: nn.Sequential(nn.Linear(3, 7), nn.ELU(), nn.Linear(7, 3)), (3,)),
    "tanh nested": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.Sequential(nn.Tanh(), nn.Linear(6, 5, bias=False), nn.Tanh()), nn.Linear(5, 4)),
        (4,),
    ),
    "softplus relu": (
        lambda: nn.Sequential(nn.Linear(3, 5), nn.Softplus(threshold=40.0), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), (3,)
    ),
    "activation first": (lambda: nn.Sequential(nn.ELU(), nn.Linear(3, 3), nn.Identity()), (3,)),
    "own sine": (lambda: nn.Sequential(nn.Linear(2, 9), Sine(), nn.Linear(9, 2)), (2,)),
    "spectral norm": (lambda: nn.Sequential(spectral_norm(nn.Linear(5, 8)), nn.ELU(), spectral_norm(nn.Linear(8, 5))), (5,)),
    "one layer": (lambda: nn.Linear(4, 4), (4,)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ELU(), nn.Conv2d(4, 3, 1), nn.Tanh(),
            spectral_norm(nn.Conv2d(3, 2, (3, 5), padding="same", bias=False, padding_mode="circular")),
        ),
        (2, 6, 5),
    ),
}  # fmt: skip


def both(name: str) -> tuple[Any, ir.Branch, Any]:
    build, event = NETS[name]
    net = seeded(build)
    x = torch.tensor(np.random.default_rng(2).standard_normal((4, *event)))
    return net, from_torch(net, event_shape=event, activation_modules={Sine: "sine"}), x


@pytest.mark.parametrize("name", NETS)
def test_values_jacobians_and_log_dets_agree(name: str) -> None:
    net, g, x = both(name)
    net.eval()
    y, chain = g.linearize(x)
    assert torch.allclose(y, net(x).detach(), rtol=1e-13, atol=1e-13)
    n = x[0].numel()
    for i, event in enumerate(x):
        jacobian = torch.autograd.functional.jacobian(lambda v: net(v[None])[0], event).reshape(n, n)
        assert torch.allclose(chain.dense()[i], jacobian, rtol=1e-12, atol=1e-13)
    shrunk = g.with_parameters({k: 0.3 * p if k.endswith("weight") else p for k, p in g.parameters().items()})
    if ir.certify(shrunk).bound < 1.0:
        ours = ir.logdet(ir.ResidualBlock(shrunk), x, method="exact").value
        inside = shrunk.linearize(x)[1].dense()
        truth = torch.linalg.slogdet(torch.eye(n, dtype=x.dtype) + inside)[1]
        assert torch.allclose(ours, truth, atol=1e-12)


# The same numbers from the module itself, scaled so that id + g is invertible.
def test_log_det_of_the_block_is_that_of_the_module() -> None:
    net, _, x = both("tanh nested")
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.5)
    block = ir.ResidualBlock(from_torch(net))
    ours = ir.logdet(block, x, method="exact").value
    for i, event in enumerate(x):
        jacobian = torch.autograd.functional.jacobian(lambda v: v + net(v[None])[0], event)
        assert abs(float(ours[i] - torch.linalg.slogdet(jacobian)[1])) < 1e-13
    assert torch.allclose(ir.invert(block, x + net(x).detach(), rtol=1e-13).x, x, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_and_weights_are_copies(dtype: Any) -> None:
    net = seeded(NETS["elu"][0]).to(dtype)
    g = from_torch(net)
    before = {k: p.clone() for k, p in g.parameters().items()}
    assert all(p.dtype == dtype and not p.requires_grad for p in g.parameters().values())
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1.0)
    assert all(torch.equal(before[k], p) for k, p in g.parameters().items())


# Reading the weight must not take a power iteration, in training mode neither; the certificate shows what one iteration is worth.
def test_spectral_norm_is_read_without_touching_it() -> None:
    net = seeded(NETS["spectral norm"][0])
    net.train()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    g = from_torch(net)
    assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())
    assert all(part.training for part in net.modules())
    effective = net.eval()[0].weight.detach()
    assert torch.equal(g.parameters()["0.weight"], effective)
    norm = float(torch.linalg.matrix_norm(effective, 2))
    assert norm <= g.layers[0].norm_bound() <= norm * (1.0 + 1e-12)


@pytest.mark.filterwarnings("ignore:.*is deprecated in favor of:FutureWarning")
def test_the_older_spectral_norm_is_read_too() -> None:
    layer = seeded(lambda: nn.utils.spectral_norm(nn.Linear(4, 4)))
    layer.eval()
    x = torch.ones(2, 4, dtype=torch.float64)
    assert torch.allclose(from_torch(layer)(x), layer(x).detach(), rtol=1e-13, atol=1e-14)


# log(1 + e^{−T}) is what torch's Softplus drops at its threshold T: 2.1e-9 at 20, below the rounding of float32, above that of float64.
def test_softplus_is_taken_where_its_jump_is_below_rounding() -> None:
    net = nn.Sequential(nn.Linear(1, 1), nn.Softplus(), nn.Linear(1, 1))
    assert from_torch(net).layers[1].activation.name == "softplus"
    with pytest.raises(ModuleError, match=r"at 1 \(Softplus\), got threshold=20, where it jumps by 2.1e-09"):
        from_torch(net.double())
    net[1].threshold = 40.0
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.fill_(1.0)
            layer.bias.fill_(0.0)
    places = torch.linspace(-45.0, 45.0, 91, dtype=torch.float64)[:, None]
    g = from_torch(net)
    assert torch.allclose(net(places).detach(), g(places), rtol=4e-16, atol=0.0)
    assert torch.allclose(to_torch(g)(places).detach(), g(places), rtol=4e-16, atol=0.0)


@pytest.mark.parametrize("name", [name for name in CONSTRUCTORS if name != "sandwich d=3 L=.97"])  # its sine is read as a sum
def test_a_branch_goes_to_torch_and_comes_back(name: str) -> None:
    g = CONSTRUCTORS[name](np.zeros(1), 3)
    g = ir.Branch(g.layers, g.event_shape)  # of a sandwich branch, the layers that it evaluates
    if not all(isinstance(layer, LinearLayer | Pointwise) for layer in g.layers):  # torch has no such modules
        with pytest.raises(ModuleError, match="expected dense, convolutional and pointwise layers"):
            to_torch(g)
        return
    net = to_torch(g)
    x = np.random.default_rng(4).standard_normal((5, *g.event_shape))
    assert np.allclose(net(torch.tensor(x)).detach().numpy(), g(x), rtol=1e-13, atol=1e-14)
    again = from_torch(net, like=x)
    assert [layer.name for layer in again.layers] == [layer.name for layer in g.layers]
    for key, p in g.parameters().items():
        assert np.array_equal(again.parameters()[key], p)
    assert again.certificate == g.certificate


@pytest.mark.parametrize("padding", ["zero", "circular"])
def test_a_convolution_goes_to_torch_and_comes_back(padding: str) -> None:
    g = ir.convnet((2, 5, 4), channels=3, kernels=(3, (1, 3), 3), padding=padding, seed=5)
    net = to_torch(g)
    x = np.random.default_rng(6).standard_normal((3, 2, 5, 4))
    assert np.allclose(net(torch.tensor(x)).detach().numpy(), g(x), rtol=1e-13, atol=1e-14)
    again = from_torch(net, event_shape=(2, 5, 4), like=x)
    assert again.certificate == g.certificate


def test_like_moves_the_branch_to_another_backend() -> None:
    like = backend("strict-device1-f32").asarray(np.zeros(1))
    net, g, _ = both("elu")
    moved = from_torch(net, like=like)
    assert moved.like.dtype == like.dtype
    assert np.array_equal(to_host(moved.parameters()["0.weight"]), to_host(g.parameters()["0.weight"]).astype(np.float32))


def conv(**settings: Any) -> Any:
    return nn.Sequential(nn.Conv2d(2, 2, **{"kernel_size": 3, "padding": 1, **settings}))


@pytest.mark.parametrize(
    ("net", "error", "message"),
    [
        (nn.Sequential(nn.ELU()), ModuleError, "at least one layer with weights, got none"),
        (nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 2)), ir.ShapeError, r"of shape \(2,\).*got from 1 \(Linear\): .*try event_shape="),
        (nn.Sequential(nn.Linear(2, 3)), ir.ShapeError, r"whose ends agree.*\(2,\) → \(3,\)"),
        (nn.Sequential(nn.LazyLinear(2)), ModuleError, r"got 0.weight, which is not initialised yet; call the module once"),
        (nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Softmax(1))), ModuleError, r"got softmax at 1\.0 \(Softmax\)"),
        (conv(stride=2), ir.ShapeError, r"whose ends agree.*\(2, 4, 4\) → \(2, 2, 2\)"),
        (torch.relu, ModuleError, r"expected a torch.nn.Module, got builtin_function_or_method"),
    ],
)
def test_what_is_not_understood_is_named(net: Any, error: type[Exception], message: str) -> None:
    event = (2, 4, 4) if "Conv2d" in str(net) else (2,)
    with pytest.raises(error, match=message) as caught:
        from_torch(net, event_shape=event)
    assert "activation_modules" not in str(caught.value)  # nothing but an activation may be declared one


def test_a_convolution_needs_its_image() -> None:
    with pytest.raises(ir.ShapeError, match=r"event_shape=\(channels, height, width\) for the convolution 0"):
        from_torch(conv())


@pytest.mark.parametrize("activation", [nn.ELU(0.5), nn.ELU(2.0), nn.LeakyReLU(), nn.LeakyReLU(0.3)])
def test_activations_with_an_argument_go_there_and_back_and_are_saved(activation: nn.Module, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 5), activation, nn.Linear(5, 3)).double()
    x = 3.0 * torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    g = from_torch(net)
    # One rounding of each product and of φ more or less: 64u of values below about 10.
    assert float((g(x) - net(x)).detach().abs().max()) <= 64 * 2.0**-53 * 10
    assert str(to_torch(g)[1]) == str(activation)
    save(tmp_path / "g", g)
    kept = load(tmp_path / "g", like=x)
    assert bool((kept(x) == g(x)).all())


class Masked(nn.Linear):  # type: ignore[misc, name-defined, unused-ignore]
    def forward(self, x: Any) -> Any:
        return nn.functional.linear(x, self.weight * torch.tril(torch.ones_like(self.weight)), self.bias)


def twice() -> Any:
    act = nn.ELU()
    return nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 4))


def hooked() -> Any:
    net = nn.Sequential(nn.Linear(4, 8), nn.ELU(), nn.Linear(8, 4))
    net[2].register_forward_hook(lambda m, i, o: 0.5 * o)
    net[0].register_forward_pre_hook(lambda m, i: (3.0 * i[0],))
    return net


def moved(wrap: Callable[[Any], Any]) -> Any:
    net = nn.Sequential(wrap(nn.Linear(4, 8).double()), nn.ELU(), nn.Linear(8, 4)).double()
    net(torch.randn(2, 4, dtype=torch.float64))
    with torch.no_grad():
        for p in net[0].parameters():
            p.add_(torch.randn_like(p))
    return net


def pruned(layer: Any) -> Any:
    from torch.nn.utils import prune

    prune.random_unstructured(layer, "weight", 0.5)
    return layer


class InPlace(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """relu_ changes h, and with it what the skip connection adds."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        h = self.a(x)
        return h + self.b(torch.relu_(h))


READ = {
    "one activation object twice": twice,
    "a subclass of Linear with a forward of its own": lambda: nn.Sequential(Masked(4, 8), nn.ELU(), nn.Linear(8, 4)),
    "hooks before and after": hooked,
    "weight_norm by hooks, weights moved since": lambda: moved(nn.utils.weight_norm),
    "spectral_norm by hooks, weights moved since": lambda: moved(nn.utils.spectral_norm),
    "pruned, weights moved since": lambda: moved(pruned),
    "changed in place before a skip connection": InPlace,
    "BatchNorm in evaluation": lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ELU(), nn.Linear(8, 4)),
    "weights in training mode": lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.9), nn.ELU(), nn.Linear(8, 4)).train(),
}


@pytest.mark.filterwarnings("ignore:.*is deprecated in favor of:FutureWarning")
@pytest.mark.parametrize("name", READ)
def test_what_the_forward_does_is_what_is_read(name: str) -> None:
    state = torch.get_rng_state()
    torch.manual_seed(0)
    net = READ[name]().double()
    x = 3.0 * torch.randn(5, 4, dtype=torch.float64)
    torch.set_rng_state(state)
    modes = [part.training for part in net.modules()]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    g = from_torch(net)
    assert modes == [part.training for part in net.modules()]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    y, rounding, *_ = g.running_error(x)
    assert bool(((y - net.eval()(x).detach()).norm(dim=1) <= 2.0 * rounding).all())
    assert float(rounding.max()) < 1e-11


# ‖J‖ of b∘φ∘b∘a at a point where φ′ = .9: taking b once gives .75.
def test_a_layer_that_stands_twice_counts_twice() -> None:
    a, b = nn.Linear(2, 2, bias=False).double(), nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        a.weight.copy_(0.3 * torch.eye(2))
        b.weight.copy_(-2.5 * torch.eye(2))
    net = nn.Sequential(a, nn.Identity(), b, nn.LeakyReLU(0.9), b)
    true = torch.linalg.matrix_norm(torch.autograd.functional.jacobian(net, torch.ones(2).double()), 2)
    certificate = ir.certify(from_torch(net))
    assert certificate.proved
    assert float(true) <= certificate.bound <= 0.3 * 2.5 * 2.5 * (1.0 + 1e-6)


class Remembering(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Any) -> Any:
        self.calls += 1.0
        return self.inner(x) * self.calls


class Opaque(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return torch.from_numpy(np.sin(x.detach().numpy()))


class OpaqueSine(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    def forward(self, x: Any) -> Any:
        return Opaque.apply(x)


def test_a_forward_that_changes_its_module_is_refused_and_undone() -> None:
    net = Remembering()
    with pytest.raises(ModuleError, match=r"leaves what it looks at as it is, got another Remembering.*calls"):
        from_torch(net)
    assert float(net.calls) == 0.0


def without_the_record(x: Any) -> float:
    with torch._C.DisableTorchFunctionSubclass():
        return float(x.sum())


PAST_THE_RECORD: dict[str, Callable[[Any], Any]] = {
    "torch.tensor": lambda x: float(torch.tensor(x).norm()),
    "no recorder": without_the_record,
    "numpy": lambda x: float(x.numpy().sum()),
    "DLPack": lambda x: float(np.from_dlpack(x).sum()),
    "a copy": lambda x: float(__import__("copy").deepcopy(x).sum()),
    "vmap": torch.func.vmap(torch.sum),
    "its address": lambda x: x.data_ptr(),
}


@pytest.mark.parametrize("how", PAST_THE_RECORD)
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
def test_a_forward_that_reads_numbers_past_the_record_is_refused(how: str) -> None:
    """Far out it is nine times as steep, where no probe goes: what is decided on numbers of the input must be seen, not compared."""

    class Decides(nn.Linear):  # type: ignore[misc, name-defined, unused-ignore]
        def forward(self, x: Any) -> Any:
            PAST_THE_RECORD[how](x)
            return super().forward(x)

    with pytest.raises(ModuleError, match=r"can be followed, got|known Lipschitz constant, got|the rows of its batch|any number of rows"):
        from_torch(Decides(3, 3).double())


@pytest.mark.parametrize("text", [str, repr, "{}".format, lambda x: f"{x}"])
def test_a_forward_that_makes_text_of_its_input_is_refused(text: Callable[[Any], str]) -> None:
    class Prints(nn.Linear):  # type: ignore[misc, name-defined, unused-ignore]
        def forward(self, x: Any) -> Any:
            return super().forward(x) * (50.0 if "e+03" in text(x) else 1.0)

    with pytest.raises(ModuleError, match="reads numbers of its input"):
        from_torch(Prints(3, 3).double())


def test_what_cannot_be_followed_can_be_declared_and_is_compared() -> None:
    net = nn.Sequential(nn.Linear(3, 5), OpaqueSine(), nn.Linear(5, 3)).double()
    with pytest.raises(ModuleError, match="got numpy at"):
        from_torch(net)
    g = from_torch(net, activation_modules={OpaqueSine: "sine"})
    x = torch.ones(2, 3, dtype=torch.float64)
    assert torch.allclose(g(x), net(x).detach(), rtol=1e-14)
    assert "forward" not in net[1].__dict__
    with pytest.raises(ModuleError, match=r"computes to .*, got .* from the module and .* from the branch at a probe of size"):
        from_torch(net, activation_modules={OpaqueSine: "tanh"})


def test_weights_that_are_not_finite_are_named() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        net[1].bias[0] = torch.nan
    with pytest.raises(ModuleError, match=r"got 1\.bias with NaN or infinity"):
        from_torch(net)


def test_too_few_bits_to_compare_are_refused() -> None:
    with pytest.raises(ModuleError, match="nothing could be compared; try the module in float32"):
        from_torch(nn.Sequential(nn.Linear(300, 300), nn.ReLU()).bfloat16())


def maxmin(h: Any) -> Any:
    a, b = h.chunk(2, 1)
    return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], 1)


def maxmin_of_neighbours(h: Any) -> Any:
    h = h.view(h.shape[0], 3, 2)
    return torch.stack([h.max(-1).values, h.amin(-1)], -1).flatten(1)


class Between(nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """A function between two dense layers."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.first, self.function, self.last = nn.Linear(4, 6), function, nn.Linear(6, 4)

    def forward(self, x: Any) -> Any:
        return self.last(self.function(self.first(x)))


SORTED: dict[str, Callable[[Any], Any]] = {
    "FullSort": lambda h: h.sort(1).values,
    "the largest first, stable": lambda h: torch.sort(h, descending=True, stable=True, dim=-1)[0],
    "GroupSort": lambda h: h.view(h.shape[0], 2, 3).sort(-1)[0].flatten(1),
    "along channels, pixels apart": lambda h: h.view(h.shape[0], 2, 3).sort(1).values.flatten(1),
    "MaxMin of halves": maxmin,
    "MaxMin of neighbours": maxmin_of_neighbours,
    "the three largest": lambda h: nn.functional.pad(h.topk(3, 1).values, (0, 3)),
}


@pytest.mark.parametrize("name", SORTED)
def test_sorting_is_read_with_lipschitz_constant_one(name: str) -> None:
    net = seeded(lambda: Between(SORTED[name]))
    g = from_torch(net, event_shape=(4,))
    x = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(g(x), net(x).detach())
    norms = [float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) for layer in (net.first, net.last)]
    assert g.certificate.proved
    assert g.certificate.bound <= norms[0] * norms[1] * (1.0 + 1e-9)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda h: h.gather(1, h.argsort(1)), "got argsort at the module"),
        (lambda h: h.gather(1, h.sort(1).indices.flip(1)), "in flip at the module .*, got the order that a sort has found"),
        (lambda h: h[:, h.sort(1)[1][0]], "in __getitem__ at the module .*, got the order that a sort has found"),
        (lambda h: h + h.max(1, keepdim=True).indices, "in .*add.* at the module .*, got the order that a sort has found"),
        (lambda h: h.sort(0).values, "expected sort of each event on its own at the module .*, got it along the batch"),
        (lambda h: h + h.amax(0, keepdim=True), "got .* of shape|along the batch"),
        (lambda h: torch.cat([h.topk(3, 1, sorted=False)[0], h[:, :3]], 1), r"topk\(sorted=True\), whose order is known"),
        (lambda h: h.sort(1)[1].double(), "got the order that a sort has found"),
    ],
)  # fmt: skip
def test_what_is_read_by_an_order_or_across_the_batch_is_refused(function: Callable[[Any], Any], why: str) -> None:
    with pytest.raises(ModuleError, match=why):
        from_torch(seeded(lambda: Between(function)), event_shape=(4,))


def test_a_collection_of_garbage_in_the_middle_of_a_run_is_not_of_the_network() -> None:
    """JAX and others leave callbacks with the collector, which comes when memory says so."""
    seen, threshold = [], gc.get_threshold()

    def callback(phase: str, info: Any) -> None:
        seen.append(time.process_time())

    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    gc.callbacks.append(callback)
    gc.set_threshold(1)
    try:
        from_torch(Called(net), event_shape=(3,))
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(callback)
    assert seen
    assert gc.isenabled()


class Called(torch.nn.Module):
    """A network that only its recorded run tells of."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.net(x)
