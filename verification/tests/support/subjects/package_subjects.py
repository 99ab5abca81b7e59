"""Layers of published packages that are correct, drawn anew for every seed and called through the adapters."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from iresnet_verify import Subject, adapters


def moved(build: Callable[[], Any], seed: int, noise: float = 0.1) -> Any:
    """A torch module in float64 with normal noise on its parameters: away from initialisation."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        with contextlib.redirect_stdout(io.StringIO()):
            net = build().double()
        for p in net.parameters():
            if p.requires_grad:
                p.add_(noise * torch.randn_like(p))
    return net


def nflows_maf(seed: int) -> Subject:
    from nflows.transforms import MaskedAffineAutoregressiveTransform

    return adapters.recognise(moved(lambda: MaskedAffineAutoregressiveTransform(5, 16), seed), (5,))


def nflows_coupling(seed: int) -> Subject:
    from nflows.nn.nets import ResidualNet
    from nflows.transforms import AffineCouplingTransform

    return adapters.recognise(
        moved(lambda: AffineCouplingTransform([1, 0, 1, 0, 1], lambda i, o: ResidualNet(i, o, 16)), seed), (5,)
    )


def nflows_spline(seed: int) -> Subject:
    from nflows.nn.nets import ResidualNet
    from nflows.transforms import PiecewiseRationalQuadraticCouplingTransform as Spline

    return adapters.recognise(moved(lambda: Spline([1, 0, 1, 0, 1], lambda i, o: ResidualNet(i, o, 16), tails="linear"), seed), (5,))


def normflows_coupling(seed: int) -> Subject:
    import normflows as nf

    def net() -> Any:
        return nf.flows.AffineCouplingBlock(nf.nets.MLP([3, 16, 6]), scale_map="sigmoid")

    return adapters.recognise(moved(net, seed), (6,))


def normflows_glow(seed: int) -> Subject:
    import normflows as nf

    def net() -> Any:
        block = nf.flows.GlowBlock(4, 8, scale=True, init_zeros=False)
        block.flows[-1].data_dep_init_done.fill_(1.0)  # its ActNorm, set from the first batch otherwise
        return block

    return adapters.recognise(moved(net, seed, 0.05), (4, 3, 3))


def zuko_of(kind: str, **options: Any) -> Callable[[int], Subject]:
    def build(seed: int) -> Subject:
        import zuko

        flow = moved(lambda: getattr(zuko.flows, kind)(4, transforms=2, hidden_features=(16, 16), **options), seed)
        return adapters.transform(lambda: flow().transform, (4,), module=flow, name=f"zuko {kind}")

    return build


def freia_of(kind: str) -> Callable[[int], Subject]:
    def build(seed: int) -> Subject:
        from FrEIA import framework, modules
        from torch import nn

        def subnet(i: int, o: int) -> nn.Module:
            return nn.Sequential(nn.Linear(i, 16), nn.Tanh(), nn.Linear(16, o))

        def net() -> Any:
            network = framework.SequenceINN(6)
            for k in range(2):
                network.append(getattr(modules, kind), subnet_constructor=subnet)
                network.append(modules.PermuteRandom, seed=seed + k)
            return network

        return adapters.recognise(moved(net, seed), (6,), name=f"FrEIA {kind}")

    return build


def freia_module(seed: int) -> Subject:
    """A module of FrEIA alone, called with lists."""
    from FrEIA import modules
    from torch import nn

    def subnet(i: int, o: int) -> nn.Module:
        return nn.Sequential(nn.Linear(i, 16), nn.Tanh(), nn.Linear(16, o))

    return adapters.recognise(moved(lambda: modules.RNVPCouplingBlock([(6,)], subnet_constructor=subnet), seed), (6,))


def torchflows_of(kind: str) -> Callable[[int], Subject]:
    def build(seed: int) -> Subject:
        import torch
        from torchflows.bijections.finite.autoregressive import architectures

        def net() -> Any:
            made = getattr(architectures, kind)((4,), n_layers=2)
            made(torch.randn(64, 4))  # its ActNorm takes its parameters from the first batch in training mode
            return made

        return adapters.recognise(moved(net, seed), (4,), name=f"torchflows {kind}")

    return build


def pyro_of(name: str, **options: Any) -> Callable[[int], Subject]:
    def build(seed: int) -> Subject:
        from pyro.distributions import transforms

        return adapters.recognise(moved(lambda: getattr(transforms, name)(4, **options), seed), (4,), name=f"pyro {name}")

    return build


def memcnn_additive(seed: int) -> Subject:
    import memcnn
    from torch import nn

    def net() -> Any:
        half = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Tanh())
        return memcnn.InvertibleModuleWrapper(memcnn.AdditiveCoupling(half), keep_input=True, keep_input_inverse=True, num_bwd_passes=16)

    return adapters.reversible(moved(net, seed), (4, 3, 3))


def torchdiffeq_flow(seed: int) -> Subject:
    import torch
    from torch import nn

    net = moved(lambda: nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)), seed)
    return adapters.ode(lambda t, x: net(x) * torch.cos(t), (2,), module=net, name="torchdiffeq flow", rtol=1e-7, atol=1e-7,
                        accuracy=1e-5)


def flowjax_of(kind: str) -> Callable[[int], Subject]:
    def build(seed: int) -> Subject:
        import jax
        import jax.numpy as jnp
        from flowjax import bijections

        jax.config.update("jax_enable_x64", True)
        key, rng = jax.random.key(seed), np.random.default_rng(seed)
        made: Any = {
            "affine": lambda: bijections.Affine(jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.uniform(0.5, 2, size=3))),
            "triangular": lambda: bijections.TriangularAffine(
                jnp.asarray(rng.normal(size=3)), jnp.asarray(np.tril(rng.normal(size=(3, 3)), -1) + np.diag(rng.uniform(0.5, 2, size=3)))),
            "coupling": lambda: bijections.Coupling(key, transformer=bijections.Affine(), untransformed_dim=2, dim=4,
                                                    nn_width=16, nn_depth=1),
            "maf": lambda: bijections.MaskedAutoregressive(key, transformer=bijections.Affine(), dim=4, nn_width=16, nn_depth=1),
        }[kind]()
        return adapters.recognise(made, made.shape, name=f"flowjax {kind}")

    return build


def distrax_of(kind: str) -> Callable[[int], Subject]:
    def build(seed: int) -> Subject:
        import distrax
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", True)
        rng = np.random.default_rng(seed)
        W, V = (jnp.asarray(rng.normal(size=s)) / 3 for s in ((4, 16), (16, 8)))

        def conditioner(x: Any) -> Any:
            return jnp.tanh(x @ W) @ V

        def affine(parameters: Any) -> Any:
            return distrax.ScalarAffine(shift=parameters[..., :4], log_scale=jnp.tanh(parameters[..., 4:]))

        lower = jnp.asarray(np.tril(rng.normal(size=(3, 3)), -1) + np.diag(rng.uniform(0.5, 2, size=3)))
        made, d = {
            "triangular": (lambda: distrax.LowerUpperTriangularAffine(lower + 0.1 * lower.T, jnp.zeros(3)), 3),
            "diagonal": (lambda: distrax.DiagLinear(jnp.asarray(rng.uniform(0.5, 2, size=3))), 3),
            "coupling": (lambda: distrax.MaskedCoupling(mask=jnp.arange(4) % 2 == 0, conditioner=conditioner, bijector=affine), 4),
        }[kind]
        return adapters.recognise(made(), (d,), name=f"distrax {kind}")

    return build


def bijx_affine(seed: int) -> Subject:
    import bijx
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(seed)
    return adapters.recognise(bijx.Scaling(jnp.asarray(rng.uniform(0.5, 2, size=3))), (3,))


PACKAGES: dict[str, tuple[str, Callable[[int], Subject]]] = {
    "nflows coupling": ("nflows", nflows_coupling),
    "nflows MAF": ("nflows", nflows_maf),
    "nflows spline": ("nflows", nflows_spline),
    "normflows RealNVP": ("normflows", normflows_coupling),
    "normflows Glow": ("normflows", normflows_glow),
    "zuko MAF": ("zuko", zuko_of("MAF")),
    "zuko NSF": ("zuko", zuko_of("NSF")),
    "zuko NICE": ("zuko", zuko_of("NICE")),
    "FrEIA AllInOne": ("FrEIA", freia_of("AllInOneBlock")),
    "FrEIA RNVP": ("FrEIA", freia_of("RNVPCouplingBlock")),
    "FrEIA NICE": ("FrEIA", freia_of("NICECouplingBlock")),
    "FrEIA Glow": ("FrEIA", freia_of("GLOWCouplingBlock")),
    "FrEIA module": ("FrEIA", freia_module),
    "flowjax affine": ("flowjax", flowjax_of("affine")),
    "flowjax triangular": ("flowjax", flowjax_of("triangular")),
    "flowjax coupling": ("flowjax", flowjax_of("coupling")),
    "flowjax MAF": ("flowjax", flowjax_of("maf")),
    "pyro affine coupling": ("pyro", pyro_of("affine_coupling")),
    "pyro spline": ("pyro", pyro_of("spline", count_bins=4)),
    "torchflows RealNVP": ("torchflows", torchflows_of("RealNVP")),
    "torchflows MAF": ("torchflows", torchflows_of("MAF")),
    "distrax diagonal": ("distrax", distrax_of("diagonal")),
    "distrax triangular": ("distrax", distrax_of("triangular")),
    "distrax coupling": ("distrax", distrax_of("coupling")),
    "bijx scaling": ("bijx", bijx_affine),
    "torchdiffeq": ("torchdiffeq", torchdiffeq_flow),
    "memcnn additive": ("memcnn", memcnn_additive),
}
"""Name -> (the package it needs, seed -> Subject)."""
