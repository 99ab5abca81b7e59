"""The same functions written anew in plain torch and JAX, differentiated by their own autodiff: oracles for the gradients.

They read the branch's parameters and the names of its activations, none of the reference's code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_ref.arrays import to_host

Gradients = tuple[Any, dict[str, Any]]


def torch_layers(g: ir.Branch, parameters: dict[str, Any]) -> list[Callable[[Any], Any]]:
    """The layers of g in plain torch, for any leading axes."""
    import torch

    phi = {
        "identity": lambda z: z,
        "lipswish": lambda z: z * torch.sigmoid(z) / 1.1,
        "elu": torch.nn.functional.elu,
        "tanh": torch.tanh,
        "softplus": lambda z: torch.nn.functional.softplus(z, threshold=100.0),
        "sine": torch.sin,
        "rising sine": lambda z: (z + torch.sin(z)) / 2,
        "relu": torch.relu,
        "leaky relu": torch.nn.functional.leaky_relu,
        "elu α=2": lambda z: torch.nn.functional.elu(z, 2.0),
        "lipswish β=3": lambda z: z * torch.sigmoid(3.0 * z) / 1.1,
        "maxmin": lambda z: z.unflatten(-1, (-1, 2)).sort(-1, descending=True)[0].flatten(-2),
        "groupsort 4": lambda z: z.unflatten(-1, (-1, 4)).sort(-1, descending=True)[0].flatten(-2),
        "fullsort": lambda z: z.sort(-1, descending=True)[0],
        "clipswish": lambda z: torch.cat([z * torch.sigmoid(z), -z * torch.sigmoid(-z)], -1) / (1.1 * 1.004),
    }

    def learnt(i: int, double: bool) -> Callable[[Any], Any]:
        def value(z: Any) -> Any:
            w = torch.nn.functional.softplus(parameters[f"{i}.raw"]) * z
            return torch.cat([z * torch.sigmoid(w), -z * torch.sigmoid(-w)], -1) / (1.1 * 1.004) if double else z * torch.sigmoid(w) / 1.1

        return value

    def affine(i: int) -> Callable[[Any], Any]:
        return lambda x: x @ parameters[f"{i}.weight"].T + parameters[f"{i}.bias"]

    def dense(i: int) -> Callable[[Any], Any]:
        def value(z: Any) -> Any:
            eta = torch.nn.functional.softplus(parameters[f"{i}.raw"])
            eta = eta / eta.norm()
            inner = z @ parameters[f"{i}.0.weight"].T + parameters[f"{i}.0.bias"]
            return torch.cat([eta[0] * z, eta[1] * phi["clipswish"](inner)], -1)

        return value

    def skip(i: int) -> Callable[[Any], Any]:
        def value(z: Any) -> Any:
            inner = torch.nn.functional.silu(z).unflatten(-1, (2, 2)).transpose(-1, -2).flatten(-2)
            (a, b), (c, d) = (tuple(parameters[f"{i}.{at}.{part}"] for part in ("scale", "bias")) for at in ("0.0", "1.3"))
            return a * z + b + c * inner + d

        return value

    def wave(i: int) -> Callable[[Any], Any]:
        return lambda z: torch.sin(parameters[f"{i}.omega"] * z) / parameters[f"{i}.omega"]

    def layer_of(i: int, name: str) -> Callable[[Any], Any]:
        if f"{i}.0.0.scale" in parameters:
            return skip(i)
        if f"{i}.0.weight" in parameters:
            return dense(i)
        if f"{i}.raw" in parameters:
            return learnt(i, name.endswith("clipswish"))
        if f"{i}.omega" in parameters:
            return wave(i)
        return affine(i) if f"{i}.weight" in parameters else phi[name]

    return [layer_of(i, layer.name) for i, layer in enumerate(g.layers)]


def sandwich_weights(g: ir.SandwichBranch, parameters: dict[str, Any], xp: Any) -> dict[str, Any]:
    """The weights and biases of the layers, from X, b and s by A = S⁻¹ and B = S⁻¹X with the Cholesky factor S of I + XXᵀ."""
    used, before, after = {}, None, None
    count = len(g.weights)
    for k in range(count):
        x = parameters[f"{2 * k}.weight"]
        inverse = xp.linalg.inv(xp.linalg.cholesky(xp.eye(x.shape[0], dtype=x.dtype) + x @ x.T))
        inverse_x = g.made.shrunk * (inverse @ x)
        weight = inverse_x if before is None else np.sqrt(2.0) * (inverse_x @ before.T) * after
        if k + 1 < count:
            after = xp.exp(parameters[f"{2 * k + 1}.scale"])
            weight = np.sqrt(2.0) * weight / after[:, None]
        used |= {f"{2 * k}.weight": weight if k + 1 < count else g.lipschitz * weight, f"{2 * k}.bias": parameters[f"{2 * k}.bias"]}
        before = inverse
    return used


def torch_branch(layers: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Their composition."""

    def value(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    return value


def torch_gradients(
    g: ir.Branch, x: Any, loss: Callable[..., Any], *more: Any, layers: bool = False, transform: Any = None
) -> tuple[Any, ...]:
    """Return (x̄, {parameter: gradient}, gradients of `more` …) of loss(g, x, *more) by torch.autograd.

    With `layers` the loss gets the list of layers instead of their composition; `transform` maps the parameters to those
    that the layers use.
    """
    import torch

    parameters = {k: torch.tensor(to_host(p), requires_grad=True) for k, p in g.parameters().items()}
    leaves = [torch.tensor(to_host(a), requires_grad=True) for a in (x, *more)]
    used = sandwich_weights(g, parameters, torch) if isinstance(g, ir.SandwichBranch) else parameters
    own = torch_layers(g, used if transform is None else transform(used))
    total = loss(own if layers else torch_branch(own), *leaves)
    wanted = [*leaves, *parameters.values()]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    full = [np.zeros(tuple(a.shape)) if d is None else d.numpy() for a, d in zip(wanted, found, strict=True)]
    n = len(leaves)
    return full[0], dict(zip(parameters, full[n:], strict=True)), *full[1:n]


def torch_jacobians(g: Callable[[Any], Any], x: Any) -> Any:
    """J_g of each row, differentiable."""
    import torch

    y = g(x)
    rows = [torch.autograd.grad(y[:, i].sum(), x, create_graph=True)[0] for i in range(y.shape[1])]
    return torch.stack(rows, dim=1)


def torch_logdets(g: Callable[[Any], Any], x: Any) -> Any:
    """log det(I + J_g) of each row, differentiable."""
    import torch

    return torch.linalg.slogdet(torch.eye(x.shape[1], dtype=x.dtype) + torch_jacobians(g, x))[1]


def jax_gradients(g: ir.Branch, x: Any, loss: Callable[..., Any], transform: Any = None) -> Gradients:
    """Return (x̄, {parameter: gradient}) of loss(g, x) by jax.grad, g being the branch on one event."""
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)  # JAX has no float64 without it; the setting is the whole process's
    phi = {
        "identity": lambda z: z,
        "lipswish": lambda z: jax.nn.swish(z) / 1.1,
        "elu": jax.nn.elu,
        "tanh": jax.numpy.tanh,
        "softplus": jax.nn.softplus,
        "sine": jax.numpy.sin,
        "rising sine": lambda z: (z + jax.numpy.sin(z)) / 2,
        "relu": jax.nn.relu,
    }

    def branch(parameters: dict[str, Any], event: Any) -> Any:
        parameters = sandwich_weights(g, parameters, jax.numpy) if isinstance(g, ir.SandwichBranch) else parameters
        parameters = parameters if transform is None else transform(parameters)
        for i, layer in enumerate(g.layers):
            affine = f"{i}.weight" in parameters
            event = parameters[f"{i}.weight"] @ event + parameters[f"{i}.bias"] if affine else phi[layer.name](event)
        return event

    parameters = {k: jax.numpy.asarray(to_host(p)) for k, p in g.parameters().items()}
    gradient = jax.grad(lambda p, z: loss(lambda event: branch(p, event), z), argnums=(0, 1))
    theta, x_bar = jax.jit(gradient)(parameters, jax.numpy.asarray(to_host(x)))
    return np.asarray(x_bar), {k: np.asarray(v) for k, v in theta.items()}


def jax_logdets(g: Callable[[Any], Any], x: Any) -> Any:
    """log det(I + J_g) of each row, differentiable."""
    import jax

    jacobians = jax.vmap(jax.jacrev(g))(x)
    return jax.numpy.linalg.slogdet(jax.numpy.eye(x.shape[1]) + jacobians)[1]


def assert_close(a: Any, b: Any, what: str, rtol: float = 1e-10, scale: float = 0.0) -> None:
    """Entries differ by at most `rtol` of the largest of b, or of `scale`."""
    a, b = (to_host(v).astype(np.float64) for v in (a, b))
    assert a.shape == b.shape, what
    worst = np.abs(a - b).max(initial=0.0)
    assert worst <= rtol * max(np.abs(b).max(initial=0.0), scale), (
        f"{what}: {worst:.3g} of {np.abs(b).max(initial=0.0):.3g}"
    )


def assert_gradients(ours: Gradients, truth: tuple[Any, ...], rtol: float = 1e-10) -> None:
    """x̄ and every parameter's gradient agree; a gradient that is zero is compared on the scale of the largest."""
    scale = 1e-3 * max(float(np.abs(v).max(initial=0.0)) for v in truth[1].values())
    assert ours[1].keys() == truth[1].keys()
    assert_close(ours[0], truth[0], "x̄", rtol, scale)
    for key, gradient in ours[1].items():
        assert_close(gradient, truth[1][key], key, rtol, scale)
