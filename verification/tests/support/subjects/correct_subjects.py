"""Networks with nothing wrong, drawn anew for every seed: no check may ever fail one of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import iresnet_backends
import iresnet_ref as ir
from iresnet_verify import Subject
from iresnet_verify.mutants.block import Block, make


def complete(seed: int) -> Subject:
    """A residual block in torch that supplies every field, its log-det both packed beside y and on its own."""

    def packed(block: Block) -> Any:
        return lambda x: (block(x), block.log_det(x))

    return make(Block, seed, forward=packed)


def reference(backend: str, dtype: str, method: str) -> Callable[[int], Subject]:
    """The reference with a branch drawn for the seed: its width, depth, activation and constant vary too."""

    def build(seed: int) -> Subject:
        rng = np.random.default_rng(seed)
        be = iresnet_backends.get(backend, dtype)
        d = int(rng.integers(1, 7))
        hidden = [int(h) for h in rng.integers(2, 17, size=int(rng.integers(1, 4)))]
        phi = str(rng.choice(["lipswish", "elu", "tanh", "softplus", "sine"]))
        L = float(rng.choice([0.5, 0.8, 0.9, 0.97]))
        F = ir.ResidualBlock(ir.mlp((d, *hidden, d), activation=phi, lipschitz=L, seed=seed, like=be.asarray([0.0])))
        rtol = {"float64": 1e-11, "float32": 1e-4}[dtype]
        offset = float(np.linalg.norm(be.to_numpy(F(be.asarray(np.zeros((1, d)))))))

        def inverse(y: Any) -> Any:
            return ir.invert(F, y, rtol=rtol).x

        def log_det(x: Any, seed: int = 0) -> Any:
            return ir.logdet(F, x, ir.Exact() if method == "exact" else ir.Roulette(probes=ir.Probes(seed=seed))).value

        return Subject(
            name=f"reference {backend} {dtype} {method} {seed}", event_shape=(d,), forward=F, residual=F.branch,
            inverse=inverse, log_det=log_det, inverse_log_det=lambda y, seed=0: -log_det(inverse(y), seed),
            lipschitz=ir.certify(F).bound, log_det_is="exact" if method == "exact" else "unbiased",
            inverse_tolerance=rtol * (1 + L + offset) / (1 - L),
            framework=backend.partition(":")[0], device=backend.partition(":")[2] or "cpu", dtype=dtype,
        )

    return build


def linear(seed: int) -> Subject:
    """F(x) = (I + A)x with ‖A‖₂ = L exactly known, in NumPy: everything about it has a closed form."""
    rng = np.random.default_rng(seed)
    d, L = int(rng.integers(1, 9)), float(rng.choice([0.3, 0.9, 0.99]))
    A = rng.standard_normal((d, d))
    A *= L * (1 - 1e-12) / np.linalg.norm(A, 2)
    F = np.eye(d) + A
    value = float(np.linalg.slogdet(F)[1])
    inverse = np.linalg.inv(F)

    def base(z: Any) -> Any:
        return -0.5 * (z * z).sum(1) - 0.5 * d * math.log(2 * math.pi)

    return Subject(
        name=f"linear {seed}", event_shape=(d,), forward=lambda x: x @ F.T, inverse=lambda y: y @ inverse.T,
        log_det=lambda x: np.full(len(x), value) + 0 * x[:, 0], inverse_log_det=lambda y: -value + 0 * y[:, 0],
        residual=lambda x: x @ A.T, lipschitz=L, log_prob=lambda x: base(x @ F.T) + value, base_log_prob=base,
        sample=lambda n, seed=0: np.random.default_rng(seed).standard_normal((n, d)) @ inverse.T, framework="numpy",
    )


def _torch_net(build: Callable[[], torch.nn.Module], seed: int) -> Any:
    """The network in float64 with normal noise of .1 on its parameters: away from initialisation."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        net = build().double()
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


def nflows_coupling(kind: str, **options: str) -> Callable[[int], Subject]:
    """Two couplings and a permutation of nflows."""

    def build(seed: int) -> Subject:
        from nflows import transforms
        from nflows.nn.nets import ResidualNet

        def net() -> torch.nn.Module:
            masks = ([1, 1, 0, 0, 0], [0, 0, 1, 1, 1])
            one, two = (getattr(transforms, kind)(m, lambda i, o: ResidualNet(i, o, 16), **options) for m in masks)
            return transforms.CompositeTransform([one, transforms.ReversePermutation(5), two])

        flow = _torch_net(net, seed)
        return Subject(name=f"{kind} {seed}", event_shape=(5,), forward=flow, inverse=flow.inverse, module=flow)

    return build


def zuko_nsf(seed: int) -> Subject:
    """A neural spline flow of zuko."""
    import zuko

    flow = _torch_net(lambda: zuko.flows.NSF(4, transforms=2, hidden_features=(16, 16)), seed)

    def forward(x: Any) -> Any:  # the transform is made anew: it keeps the parameters of the moment
        return flow().transform.call_and_ladj(x)

    def inverse(y: Any) -> Any:
        return flow().transform.inv(y)

    return Subject(name=f"zuko NSF {seed}", event_shape=(4,), forward=forward, inverse=inverse, module=flow)


def real_nvp(seed: int) -> Subject:
    """Affine couplings of normflows with swaps between them, its log-dets summed in their own precision.

    They promise something for normal rows: on rows three times as large four couplings of seed 65 divide by a sigmoid that is 0.
    """
    import normflows as nf

    def net() -> torch.nn.Module:
        return torch.nn.ModuleList(
            nf.flows.AffineCouplingBlock(nf.nets.MLP([3, 32, 32, 6]), scale_map="sigmoid") for _ in range(4)
        )

    layers = _torch_net(net, seed)

    def through(x: Any, steps: list[Callable[[Any], Any]]) -> Any:
        total = torch.zeros(len(x), dtype=x.dtype)
        for step in steps:
            x, log_det = step(x.flip(1))
            total = total + log_det
        return x.flip(1), total

    return Subject(
        name=f"RealNVP {seed}", event_shape=(6,), module=layers, inputs=lambda n, rng: rng.standard_normal((n, 6)),
        forward=lambda x: through(x, [f.forward for f in layers]),
        inverse=lambda y: through(y, [f.inverse for f in reversed(layers)]),
    )


CORRECT: dict[str, Callable[[int], Subject]] = {
    "complete": complete,
    "linear": linear,
    "reference numpy float64 exact": reference("numpy", "float64", "exact"),
    "reference numpy float32 exact": reference("numpy", "float32", "exact"),
    "reference numpy float64 roulette": reference("numpy", "float64", "roulette"),
    "reference torch float64 exact": reference("torch:cpu", "float64", "exact"),
    "reference strict device1 float32 exact": reference("array-api-strict:device1", "float32", "exact"),
    "nflows affine": nflows_coupling("AffineCouplingTransform"),
    "nflows spline": nflows_coupling("PiecewiseRationalQuadraticCouplingTransform", tails="linear"),
    "zuko NSF": zuko_nsf,
    "normflows RealNVP": real_nvp,
}
