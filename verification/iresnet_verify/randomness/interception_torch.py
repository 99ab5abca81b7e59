"""Interception of torch's draws: a TorchFunctionMode that recognises every random function and method by identity."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from iresnet_verify.randomness import distributions
from iresnet_verify.randomness.distributions import Distribution
from iresnet_verify.randomness.recorder import DrawRecorder, patch

Reader = Callable[..., Distribution]
"""arguments of a call -> the distribution it draws from."""


def _randint(*args: Any, low: Any = None, high: Any = None, **_: Any) -> Distribution:
    bounds = [a for a in args if isinstance(a, int)] if low is None and high is None else []
    if len(bounds) == 2:
        return distributions.integers(*bounds)
    if len(bounds) == 1:
        return distributions.integers(low or 0, bounds[0])
    return distributions.integers(low or 0, high)


def _randint_like(_: Any, *args: Any, **kwargs: Any) -> Distribution:
    return _randint(*args, **kwargs)


def _random(_: Any, *args: Any, **kwargs: Any) -> Distribution:
    low, high = kwargs.pop("from", None), kwargs.pop("to", None)
    return _randint(*args, low=low, high=high) if high is not None else _randint(*args) if args else distributions.OTHER


def _bernoulli(given: Any, p: Any = None, **_: Any) -> Distribution:
    return distributions.two_point(0.0, 1.0, given if p is None else p)


_FUNCTIONS: dict[str, Reader] = {
    "randn": lambda *a, **k: distributions.normal(),
    "randn_like": lambda *a, **k: distributions.normal(),
    "normal": lambda mean=0.0, std=1.0, *a, **k: distributions.normal(mean, std),
    "rand": lambda *a, **k: distributions.uniform(),
    "rand_like": lambda *a, **k: distributions.uniform(),
    "randint": _randint,
    "randint_like": _randint_like,
    "bernoulli": _bernoulli,
    "poisson": lambda rates, *a, **k: distributions.poisson(rates),
    "multinomial": lambda *a, **k: distributions.OTHER,
    "randperm": lambda *a, **k: distributions.OTHER,
    "dropout": lambda *a, **k: distributions.OTHER,
    "alpha_dropout": lambda *a, **k: distributions.OTHER,
    "feature_dropout": lambda *a, **k: distributions.OTHER,
    "rrelu": lambda *a, **k: distributions.OTHER,
}
_METHODS: dict[str, Reader] = {
    "normal_": lambda x, mean=0.0, std=1.0, **k: distributions.normal(mean, std),
    "uniform_": lambda x, *a, **k: distributions.uniform(*a) if a else distributions.uniform(k.get("from", 0.0), k.get("to", 1.0)),
    "bernoulli": _bernoulli,
    "bernoulli_": lambda x, p=0.5, **k: distributions.two_point(0.0, 1.0, p),
    "random_": _random,
    "geometric_": lambda x, p, **k: distributions.geometric(p, 1),
    "exponential_": lambda *a, **k: distributions.OTHER,
    "cauchy_": lambda *a, **k: distributions.OTHER,
    "log_normal_": lambda *a, **k: distributions.OTHER,
    "multinomial": lambda *a, **k: distributions.OTHER,
}


def _unreadable(*_: Any, **__: Any) -> Distribution:
    return distributions.OTHER


_DRAWING = (
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "gumbel_softmax", "rrelu",
    "fractional_max_pool2d", "fractional_max_pool3d",
)
_INIT: dict[str, Reader] = {"normal_": _METHODS["normal_"], "uniform_": lambda x, a=0.0, b=1.0, **k: distributions.uniform(a, b)}


def _readers() -> dict[Any, tuple[str, Reader]]:
    found = {getattr(torch, n): (f"torch.{n}", r) for n, r in _FUNCTIONS.items() if hasattr(torch, n)}
    # Functions written in Python reach the mode as a whole: what they draw inside is not seen any more.
    unrecorded = torch.nn.functional
    found |= {getattr(unrecorded, n): (f"torch.nn.functional.{n}", _unreadable) for n in _DRAWING if hasattr(unrecorded, n)}
    found |= {f: (f"torch.nn.init.{n}", _INIT.get(n, _unreadable)) for n, f in vars(torch.nn.init).items()
              if n.endswith("_") and not n.startswith("_") and callable(f)}
    return found | {getattr(torch.Tensor, n): (f"torch.Tensor.{n}", r) for n, r in _METHODS.items()}


class _Mode(TorchFunctionMode):
    def __init__(self, recorder: DrawRecorder) -> None:
        super().__init__()
        self.recorder, self.readers = recorder, _readers()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        known = self.readers.get(func)
        if known is None:
            return func(*args, **kwargs)
        name, reader = known
        distribution = reader(*args, **{k: v for k, v in kwargs.items() if k not in _PLACE})
        return self.replaced(name, distribution, func(*args, **kwargs))

    def replaced(self, name: str, distribution: Distribution, out: Any) -> Any:
        if not isinstance(out, torch.Tensor):
            return out
        distribution = distributions.coarse(distribution, out.dtype != torch.float64)
        given = self.recorder.record(name, distribution, out.detach().cpu().numpy().copy(), "torch")
        if given is not None:
            with torch.no_grad():
                out.copy_(torch.as_tensor(given).reshape(out.shape))
        return out


_PLACE = frozenset({"dtype", "device", "layout", "requires_grad", "generator", "out", "pin_memory", "memory_format", "size"})


def install(recorder: DrawRecorder, stack: ExitStack) -> None:
    """Record torch's generators until the stack is closed."""
    mode = stack.enter_context(_Mode(recorder))
    geometric = torch.distributions.Geometric
    real = geometric.sample

    def sample(self: Any, sample_shape: Any = ()) -> Any:
        out = recorder.unrecorded(real, self, torch.Size(sample_shape))
        return mode.replaced("torch.distributions.Geometric.sample", distributions.geometric(self.probs, 0), out)

    patch(stack, geometric, "sample", sample)
