"""Someone's torch modules as a branch of the reference with the same weights, and back.

Outputs, norms, Jacobians and log-determinants of the two can then be compared number by number. Weights are copied: what is
trained later on either side does not reach the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import iresnet_ref as ir
from iresnet_backends.errors import BackendUnavailableError, ModuleError
from iresnet_ref.arrays import from_host, to_host
from iresnet_ref.errors import ShapeError
from iresnet_ref.layers import activations
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.linear import Affine, Conv
from iresnet_ref.layers.pointwise import Pointwise

MARK = "iresnet_activation"
"""Attribute of a torch module that names the activation it computes."""


def from_torch(
    module: Any,
    *,
    event_shape: Sequence[int] | None = None,
    activation_modules: Mapping[type, str] | None = None,
    like: Any = None,
) -> ir.Branch:
    """Return g with the weights of a torch module: an nn.Sequential (nested ones too) of linear layers and activations.

    Understood: Linear; Conv2d of stride 1, odd kernel and "same" padding, zeros or circular (then `event_shape` =
    (channels, height, width) is needed: norms belong to an image size); ELU, Tanh, Softplus (beta 1), ReLU, LeakyReLU, Identity;
    what `to_torch` returns; and your own activation classes by `activation_modules`, {MySine: "sine"}. Weights under
    `parametrizations.spectral_norm` and other parametrisations are the effective ones of evaluation mode, read without
    touching buffers or modes. Missing biases become 0.

    The branch is in the module's dtype, in torch and on its device, unless `like` gives others. It is contractive or not as the
    weights are: `ir.certify` says. Numerical limits: torch's Softplus is linear above its threshold, 20 by default, where
    it is e⁻²⁰ = 2.1e-9 below log(1 + eˣ), with a kink; the branch has the function itself.
    Raises: ModuleError for a module that is not understood (its place, class and setting), ShapeError where widths do not
    fit or the ends differ, BackendUnavailableError without torch.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ELU(), torch.nn.Linear(8, 2)).double()
    >>> x = torch.ones(3, 2, dtype=torch.float64)
    >>> bool((from_torch(net)(x) - net(x)).abs().max() < 1e-15)
    True
    """
    torch = _torch()
    known = {**_activation_classes(torch), **(activation_modules or {})}
    layers: list[Layer] = []
    shape = None if event_shape is None else tuple(event_shape)
    start = shape
    for name, part in _parts(module, torch):
        if isinstance(part, torch.nn.Linear):
            layer: Any = _linear(part, torch)
            start, shape = _next(name, start, shape, (part.in_features,), (part.out_features,))
        elif isinstance(part, torch.nn.Conv2d):
            if shape is None or len(shape) != 3:
                raise ShapeError(
                    f"from_torch: expected event_shape=(channels, height, width) for the convolution {name}, got {shape}; "
                    "its norm belongs to an image size"
                )
            layer = _convolution(name, part, (shape[1], shape[2]), torch)
            start, shape = _next(name, start, shape, (part.in_channels, *shape[1:]), (part.out_channels, *shape[1:]))
        else:
            layer = Pointwise(_activation(name, part, known, torch))
        layers.append(layer)
    if shape is None or start is None:
        raise ModuleError("from_torch: expected at least one Linear or Conv2d, got none; give nn.Sequential(nn.Linear(…), …)")
    if start != shape:
        raise ShapeError(f"from_torch: expected a branch whose ends agree, for x + g(x), got {start} → {shape}")
    branch = ir.Branch(tuple(layers), start)
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


def _activation_classes(torch: Any) -> dict[type, str]:
    nn = torch.nn
    return {nn.ELU: "elu", nn.Tanh: "tanh", nn.Softplus: "softplus", nn.ReLU: "relu", nn.Identity: "identity", nn.LeakyReLU: "leaky relu"}


def _parts(module: Any, torch: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (place, module) of all that is no container."""
    if type(module) is torch.nn.Sequential:
        for child, part in module.named_children():
            yield from _parts(part, torch, f"{name}.{child}" if name else child)
    else:
        yield name or "the module", module


def _next(
    name: str, start: Any, shape: Any, wants: tuple[int, ...], gives: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return (shape of the first input, shape behind this layer)."""
    if shape is not None and tuple(shape) != wants:
        raise ShapeError(f"from_torch: expected events {wants} in front of {name}, got {tuple(shape)}")
    return wants if start is None else start, gives


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Keep spectral normalisations from taking a power iteration when their weight is read."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _weights(module: Any, torch: Any) -> tuple[Any, Any]:
    """Return copies of the effective weight and bias."""
    with torch.no_grad(), _evaluating(module):
        weight = module.weight
        for hook in module._forward_pre_hooks.values():  # the older torch.nn.utils.spectral_norm
            if hasattr(hook, "compute_weight") and hasattr(module, f"{hook.name}_u") and hook.name == "weight":
                weight = hook.compute_weight(module, do_power_iteration=False)
        weight = weight.detach().clone()
        bias = torch.zeros_like(weight[:, 0].reshape(weight.shape[0], -1)[:, 0]) if module.bias is None else module.bias
        return weight, bias.detach().clone()


def _linear(module: Any, torch: Any) -> Affine:
    return Affine(*_weights(module, torch))


def _convolution(name: str, module: Any, image: tuple[int, int], torch: Any) -> Conv:
    same = tuple(k // 2 for k in module.kernel_size)
    padding = same if module.padding == "same" else (0, 0) if module.padding == "valid" else tuple(module.padding)
    refused = {
        "stride": (module.stride, (1, 1)), "dilation": (module.dilation, (1, 1)), "groups": (module.groups, 1),
        "kernel_size": (tuple(k % 2 for k in module.kernel_size), (1, 1)), "padding": (padding, same),
    }  # fmt: skip
    for setting, (got, wanted) in refused.items():
        if got != wanted:
            value = getattr(module, setting)
            raise ModuleError(
                f"from_torch: expected {name}, Conv2d, of stride 1, odd kernel, 'same' padding, no dilation or groups, "
                f"got {setting}={value}"
            )
    if module.padding_mode not in ("zeros", "circular"):
        raise ModuleError(
            f"from_torch: expected {name}, Conv2d, of padding_mode 'zeros' or 'circular', got {module.padding_mode!r}"
        )
    return Conv(*_weights(module, torch), image, "circular" if module.padding_mode == "circular" else "zero")


def _activation(name: str, module: Any, known: Mapping[type, str], torch: Any) -> activations.Activation:
    """Return the activation that a module computes."""
    if isinstance(getattr(module, MARK, None), str):
        return activations.get(str(getattr(module, MARK)))
    found = known.get(type(module))
    if found is None:
        raise ModuleError(
            f"from_torch: expected Linear, Conv2d, {', '.join(sorted(c.__name__ for c in known))}, got {type(module).__name__} at "
            f"{name}; an activation of your own goes into activation_modules={{{type(module).__name__}: name}}"
        )
    if isinstance(module, torch.nn.ELU):
        return activations.elu(module.alpha)
    if isinstance(module, torch.nn.LeakyReLU):
        return activations.leaky_relu(module.negative_slope)
    if isinstance(module, torch.nn.Softplus) and module.beta != 1.0:
        raise ModuleError(f"from_torch: expected {name}, Softplus, with beta=1, got {module.beta}")
    return activations.get(found)


def _torch_activation(activation: activations.Activation, torch: Any) -> Any:
    """Return a torch module that computes the activation."""
    nn, name = torch.nn, activation.name
    family, argument = activation.made or ("", 0.0)
    if family in ("elu", "leaky relu"):
        return nn.ELU(argument) if family == "elu" else nn.LeakyReLU(argument)
    formulas: dict[str, Callable[[Any], Any]] = {"lipswish": lambda x: x * torch.sigmoid(x) / 1.1, "sine": torch.sin}
    if name in formulas:
        body = {"forward": lambda _, x: formulas[name](x), MARK: name, "extra_repr": lambda _: name}
        return type("Activation", (nn.Module,), body)()
    if name == "softplus":
        return nn.Softplus(threshold=40.0)
    for cls, known in _activation_classes(torch).items():
        if known == name:
            return cls()
    raise ModuleError(f"to_torch: expected an activation that torch has, or lipswish or sine, got {name!r}")


__all__ = ["from_torch", "to_torch"]
