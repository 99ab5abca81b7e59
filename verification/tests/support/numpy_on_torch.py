"""Examples on torch: `np` makes tensors, and the constructors of the reference make weights of torch where nobody says otherwise.

An example that is written for NumPy then runs on torch as it stands. What it asks of NumPy besides arrays (norms, comparisons) is
answered by NumPy, of the tensors' values.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from doctest import OutputChecker
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

CREATION = ("array", "asarray", "zeros", "ones", "full", "eye", "diag", "linspace", "arange", "stack", "concatenate")


def on_host(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    return type(value)(map(on_host, value)) if isinstance(value, list | tuple) else value


def made(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *a, **k: torch.as_tensor(function(*map(on_host, a), **k))


def asked(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *a, **k: function(*map(on_host, a), **k)


class Draws:
    """A generator of NumPy whose draws are tensors."""

    def __init__(self, *seed: int) -> None:
        self._generator = np.random.default_rng(*seed)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return made(getattr(self._generator, name))


class NumpyOnTorch(ModuleType):
    """Stands for `numpy`."""

    random = SimpleNamespace(default_rng=Draws)

    def __getattr__(self, name: str) -> Any:
        if name == "linalg":
            return SimpleNamespace(norm=asked(np.linalg.norm))
        value = getattr(np, name)
        if name in CREATION:
            return made(value)
        return asked(value) if callable(value) and not isinstance(value, type) else value


def like_torch(function: Any) -> Any:
    """Return the function with `like=` a tensor, where it has that argument and nobody gives it."""
    try:
        like = inspect.signature(function).parameters.get("like")
    except (TypeError, ValueError):
        return function
    if not inspect.isroutine(function) or like is None or like.default is not None:
        return function
    return functools.wraps(function)(lambda *a, **k: function(*a, **{"like": torch.zeros(1, dtype=torch.float64), **k}))


class ReferenceOnTorch(ModuleType):
    """Stands for `iresnet_ref` and its faces."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        return ReferenceOnTorch(value) if isinstance(value, ModuleType) else like_torch(value)


class Checker(OutputChecker):
    """Takes `torch.Size([3, 2])` for `(3, 2)` and `torch.float64` for `float64`."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        got = re.sub(r"torch\.Size\(\[([\d, ]*)\]\)", lambda found: str(tuple(map(int, found.group(1).replace(",", " ").split()))), got)
        return super().check_output(want, re.sub(r"torch\.(float64|float32|int64)", r"\1", got), optionflags)


def rewritten(example: str) -> str:
    return example.replace("import numpy as np", "import numpy_on_torch_ as np").replace("iresnet_ref as ir", "iresnet_ref_on_torch as ir")


@contextmanager
def installed(reference: ModuleType) -> Iterator[None]:
    """Make the two modules that `rewritten` examples import."""
    with pytest.MonkeyPatch.context() as patch:
        import sys

        patch.setitem(sys.modules, "numpy_on_torch_", NumpyOnTorch("numpy_on_torch_"))
        patch.setitem(sys.modules, "iresnet_ref_on_torch", ReferenceOnTorch(reference))
        yield
