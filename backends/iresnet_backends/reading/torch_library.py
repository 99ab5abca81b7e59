"""Which objects of torch and NumPy a forward pass may load: those that are functions of their arguments, whatever mode the code runs in."""

# pyright: reportPrivateUsage=false
# Which functions are torch's own is told where its public interface ends.

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from iresnet_backends.reading.observed import NUMPY, Library

CONSTANTS = (
    "zeros", "ones", "full", "eye", "arange", "linspace", "logspace", "tensor", "as_tensor", "scalar_tensor", "is_tensor", "from_numpy",
    "Size", "dtype", "device", "finfo", "iinfo", "no_grad", "enable_grad", "set_grad_enabled", "inference_mode", "complex", "polar",
    "tril_indices", "triu_indices", "meshgrid", "broadcast_shapes",
)  # fmt: skip
"""Functions of torch that make constants, and its contexts; all that take tensors are seen by the recorder."""


@lru_cache(maxsize=1)
def _seen_by_the_recorder() -> frozenset[int]:
    functions = torch.overrides.get_overridable_functions()
    made = [getattr(torch, name) for name in CONSTANTS] + [torch.nn.functional.tanh, torch.nn.functional.sigmoid]
    return frozenset(map(id, [*(f for group in functions.values() for f in group), *made]))


def _admits(value: Any) -> bool:
    if isinstance(value, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return str(value).startswith("aten.")
    if isinstance(value, type) and issubclass(value, torch.nn.Module | torch.autograd.Function | torch.Tensor):
        return True
    if isinstance(value, np.ufunc) or (getattr(value, "__module__", "") == "numpy" and getattr(value, "__name__", "") in NUMPY):
        return True
    name = getattr(value, "__name__", "")
    if name.endswith("_") and value is getattr(torch, name, None):  # relu_: where relu is seen, it is
        value = getattr(torch, name.removesuffix("_"), None)
    return id(value) in _seen_by_the_recorder()


def _content(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        with torch._C.DisableTorchFunction(), torch.no_grad():
            if value.is_meta or value.layout != torch.strided or value.is_quantized:
                return id(value), value._version
            flat = value.detach().contiguous().cpu().reshape(-1)
            return tuple(value.shape), str(value.dtype), hash(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    if isinstance(value, torch.Size | torch.dtype | torch.device | torch.layout | torch.memory_format | torch.finfo | torch.iinfo):
        return repr(value)
    if isinstance(value, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return id(value)
    return None


TORCH = Library(("torch", "numpy", "iresnet_backends.reading"), _admits, _content)
