"""Someone's torch modules as a branch of the reference with the same weights, and back.

Outputs, norms, Jacobians and log-determinants of the two can then be compared number by number. Weights are copied: what is
trained later on either side does not reach the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import iresnet_ref as ir
from iresnet_backends.errors import BackendUnavailableError, ModuleError
from iresnet_ref.arrays import from_host, to_host
from iresnet_ref.errors import ShapeError
from iresnet_ref.layers import activations
from iresnet_ref.layers.linear import Affine, Conv
from iresnet_ref.layers.pointwise import Pointwise


def from_torch(
    module: Any,
    *,
    event_shape: Sequence[int] | None = None,
    activation_modules: Mapping[type, str] | None = None,
    like: Any = None,
) -> ir.Branch:
    """Return g with the weights of a torch module, read from what its forward does in evaluation mode.

    The forward is run once on a tensor that records the functions applied to it, so that hooks, parametrisations, subclasses and
    modules that stand twice count as what they compute. Understood are linear maps (dense; convolutions of 1 to 3 axes with any
    stride, padding, dilation, groups; transposed ones; average pooling, padding, upsampling, slices, up to 4096 numbers where
    the operator is not a convolution that keeps its image), BatchNorm with its running statistics, scales and shifts, sums of paths
    (skip connections), reshapes, and the activations whose Lipschitz constants docs/proofs.md proves. docs/modules.md lists what published
    modules give. Convolutions need `event_shape` = (channels, height, width); else it is that of the first Linear.

    The result is compared with the module on probes of six sizes before it is returned. It is in the module's dtype, in torch and on its
    device, unless `like` gives others, and contractive or not as the weights are: `ir.certify` says. `activation_modules`,
    {MySine: "sine"}, names classes whose forward cannot be followed and that compute an activation of the reference; they are
    compared like all else.
    Raises: ModuleError naming the place and the function that is not understood, or showing both numbers where the branch and the
    module differ; ShapeError where widths do not fit or the ends differ; BackendUnavailableError without torch.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ELU(), torch.nn.Linear(8, 2)).double()
    >>> x = torch.ones(3, 2, dtype=torch.float64)
    >>> bool((from_torch(net)(x) - net(x)).abs().max() < 1e-15)
    True
    """
    torch = _torch()
    from iresnet_backends.reading.torch_function import read

    if not isinstance(module, torch.nn.Module):
        raise ModuleError(
            f"from_torch: expected a torch.nn.Module, got {type(module).__name__}; try nn.Sequential(nn.Linear(…), …)"
        )
    _require_readable(module, torch)
    shape = _event_shape(module, event_shape, torch)
    weight = next(p for p in module.parameters() if p.is_floating_point())
    branch = read(module, module, shape, weight, declared=activation_modules or {})
    if like is None:
        return branch
    return branch.with_parameters({k: from_host(to_host(p), like) for k, p in branch.parameters().items()})


def to_torch(branch: ir.Branch) -> Any:
    """Return the branch as an nn.Sequential on the CPU, in its dtype, with trainable copies of its weights.

    LipSwish and sine, which torch does not have, are small modules of their own; Softplus gets threshold 40, where it is
    exact to rounding. `from_torch` takes all of it back. Raises: ModuleError for a layer that torch cannot express here.

    >>> g = ir.mlp((2, 8, 2), activation="lipswish")
    >>> net = to_torch(g)
    >>> bool((from_torch(net).parameters()["0.weight"].detach().numpy() == g.parameters()["0.weight"]).all())
    True
    """
    torch = _torch()
    modules: list[Any] = []
    for layer in branch.layers:
        if isinstance(layer, Affine | Conv):
            weight, bias = (torch.tensor(to_host(p)) for p in (layer.weight, layer.bias))
            if isinstance(layer, Affine):
                module = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
            else:
                sides = tuple(weight.shape[2:])
                module = torch.nn.Conv2d(
                    weight.shape[1], weight.shape[0], sides, padding=tuple(k // 2 for k in sides), dtype=weight.dtype,
                    padding_mode="circular" if layer.padding == "circular" else "zeros",
                )  # fmt: skip
            with torch.no_grad():
                module.weight.copy_(weight)
                module.bias.copy_(bias)
        elif isinstance(layer, Pointwise):
            module = _torch_activation(layer.activation, torch)
        else:
            raise ModuleError(f"to_torch: expected dense, convolutional and pointwise layers, got {layer.name}")
        modules.append(module)
    return torch.nn.Sequential(*modules)


def _torch() -> Any:
    try:
        import torch
    except ImportError as missing:
        raise BackendUnavailableError(
            'from_torch: the package torch cannot be imported; try pip install "iresnet-ref[torch]"'
        ) from missing
    return torch


def _require_readable(module: Any, torch: Any) -> None:
    """Refuse modules without weights, with weights that do not exist yet or are not finite, and compiled ones."""
    if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):
        raise ModuleError(
            f"from_torch: expected a module whose forward is Python, got {type(module).__name__}; try the module it was compiled from"
        )
    found = False
    for name, p in (*module.named_parameters(), *module.named_buffers()):
        if torch.nn.parameter.is_lazy(p):
            raise ModuleError(
                f"from_torch: expected weights, got {name}, which is not initialised yet; call the module once"
            )
        if isinstance(p, torch.nn.Parameter) and (p.is_meta or not bool(p.isfinite().all())):
            raise ModuleError(
                f"from_torch: expected finite weights, got {name} with {'no values' if p.is_meta else 'NaN or infinity'}"
            )
        found = found or (p.is_floating_point() and isinstance(p, torch.nn.Parameter))
    if not found:
        raise ModuleError(
            "from_torch: expected at least one layer with weights, got none; give nn.Sequential(nn.Linear(…), …)"
        )


def _event_shape(module: Any, event_shape: Sequence[int] | None, torch: Any) -> tuple[int, ...]:
    """Return the shape of events: as given, else the inputs of the first Linear."""
    if event_shape is not None:
        return tuple(event_shape)
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.Linear):
            return (part.in_features,)
        if isinstance(part, torch.nn.modules.conv._ConvNd):
            raise ShapeError(
                f"from_torch: expected event_shape=(channels, height, width) for the convolution {name or 'the module'}, got None; "
                "its norm belongs to an image size"
            )
    raise ShapeError(
        f"from_torch: expected event_shape= for {type(module).__name__}, which has no Linear to tell it, got None"
    )


def _torch_activation(activation: activations.Activation, torch: Any) -> Any:
    """Return a torch module that computes the activation."""
    nn = torch.nn
    made: dict[str, Callable[..., Any]] = {
        "elu": nn.ELU, "leaky relu": nn.LeakyReLU, "celu": nn.CELU, "hardtanh": nn.Hardtanh, "softshrink": nn.Softshrink,
        "softplus": lambda beta=1.0: nn.Softplus(beta, threshold=40.0),
        "silu": lambda beta: _formula(f"swish {beta}", lambda x: x * torch.sigmoid(beta * x), nn),
        "lipswish": lambda beta=1.0: _formula(f"lipswish {beta}", lambda x: x * torch.sigmoid(beta * x) / 1.1, nn),
        "gelu": nn.GELU, "gelu tanh": lambda: nn.GELU(approximate="tanh"), "sine": lambda: _formula("sine", torch.sin, nn),
        "rising sine": lambda: _formula("rising sine", lambda x: 0.5 * (x + torch.sin(x)), nn),
        "identity": nn.Identity, "tanh": nn.Tanh, "relu": nn.ReLU, "mish": nn.Mish, "sigmoid": nn.Sigmoid, "log sigmoid": nn.LogSigmoid,
        "softsign": nn.Softsign, "tanhshrink": nn.Tanhshrink, "selu": nn.SELU, "hard sigmoid": nn.Hardsigmoid, "hardswish": nn.Hardswish,
    }  # fmt: skip
    if activation.name == "silu":
        return nn.SiLU()
    family, *arguments = activation.made or (activation.name,)
    if family not in made:
        raise ModuleError(
            f"to_torch: expected an activation that torch has, or lipswish, sine or rising sine, got {activation.name!r}"
        )
    return made[family](*arguments)


def _formula(name: str, function: Callable[[Any], Any], nn: Any) -> Any:
    body = {"forward": lambda _, x: function(x), "extra_repr": lambda _: name}
    return type("Activation", (nn.Module,), body)()


__all__ = ["from_torch", "to_torch"]
