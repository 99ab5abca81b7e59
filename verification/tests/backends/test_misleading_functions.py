"""Functions that look contractive where they are looked at, and are not: no proof may pass."""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pytest
from hidden_counters import MANY, Counting, count_at, count_in, count_outside, remembered_clock

from iresnet_backends import ModuleError
from iresnet_verify import Subject, audit

torch = pytest.importorskip("torch")
from iresnet_backends.reading.torch_function import read  # noqa: E402

F = torch.nn.functional
W = 0.5 * torch.eye(4)
FAR = 1e3
"""Beyond every probe."""


def steep(x: Any) -> Any:
    return torch.where(x.abs() > FAR, 50.0 * x, torch.tanh(x))


def tanh(x: Any) -> Any:
    """A function of another library, with the name of one of torch, that lets tensors decide on it."""
    return torch.overrides.handle_torch_function(tanh, (x,), x) if torch.overrides.has_torch_function_unary(x) else steep(x)


class Quantised(torch.Tensor):  # type: ignore[misc, unused-ignore]
    """A weight that multiplies in its own way."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            out = function(*args, **(kwargs or {}))
            return steep(out) if function is F.linear else out


def through_dlpack(x: Any) -> Any:
    same = torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x))
    return F.linear(x, W) * (50.0 if bool((same.abs() > FAR).any()) else 1.0)


class Clock(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.now, self.calls = time.time, 0

    def forward(self, x: Any) -> Any:
        return F.linear(x, W) * (50.0 if self.now() > 2e12 else 1.0)


class Gradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return F.linear(x, W) * (50.0 if ctx.needs_input_grad[0] else 1.0)


class Pointer:
    """Hands on what is in it, for NumPy to look at."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **how: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


OBJECT, CALLS, COUNT, LEFT = Counting(), [0], itertools.count(), list(range(10**6))
NUMBER, TENSOR, WEIGHT, BUFFER = np.zeros(()), torch.zeros(()), torch.nn.Parameter(W.clone()), torch.zeros(5, 4)
SYSTEM_CLOCK = ctypes.CDLL(None).time
FUNCTIONS, BOUND, CONTEXT, LATER = {"now": time.time}, partial(torch.is_grad_enabled), threading.local(), (i for i in itertools.count())
GENERATOR = np.random.default_rng(0)
grad_enabled = torch.is_grad_enabled


def swallowing(x: Any) -> bool:
    try:
        return bool(x.abs().max() > FAR)
    except Exception:
        return False


def numpy_of_a_weight(x: Any) -> bool:
    try:
        (WEIGHT * 1.0).numpy()
    except RuntimeError:  # with gradients alone
        return True
    return False


def traceback(x: Any) -> bool:
    try:
        raise ValueError
    except ValueError as error:
        return bool(error.__traceback__.tb_frame.f_back.f_code.co_name == "run")


def imported(x: Any) -> bool:
    from time import time as clock

    return clock() > 2e12


def previous(x: Any) -> bool:
    with (mode := torch.no_grad()):
        return bool(mode.prev)


def decided(decide: Callable[[Any], Any], x: Any) -> Any:
    return F.linear(x, W) * (50.0 if decide(x) else 1.0)


DECIDES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "rows": (lambda x: x.shape[0] > 1000, "number of rows"),
    "size": (lambda x: x.size(0) > 1000, "number of rows"),
    "the shape": (lambda x: x.shape == (1000, 4), "number of rows"),
    "len": (lambda x: len(x) == 1, "number of rows"),
    "numel": (lambda x: x.numel() > 1000, "number of rows"),
    "ones for rows": (lambda x: torch.ones(x.shape[0]).sum() > 1000, "ones at"),
    "the class of rows": (lambda x: type(x.shape[0]) is int, "type of something"),
    "a symbol for rows": (lambda x: not isinstance(x.shape[0], torch.SymInt), "SymInt"),
    "a counter in a list": (lambda x: count_at(CALLS), "another (list|CALLS)"),
    "a counter in an object": (lambda x: count_in(OBJECT), "calls"),
    "a counter in a class": (lambda x: count_in(Counting), "calls"),
    "a counter in a function": (lambda x: count_in(count_in), "calls"),
    "a counter outside": (count_outside(), "a new value of calls"),
    "a counter among defaults": (lambda x, place=[0]: count_at(place), "list"),
    "a counter in NumPy": (lambda x: np.add(NUMBER, 1, out=NUMBER) > MANY, "NUMBER"),
    "a counter in torch": (lambda x: TENSOR.add_(1) > MANY, "TENSOR"),
    "a counter by iteration": (lambda x: next(COUNT) > MANY, "itertools.count"),
    "a counter by generation": (lambda x: next(LATER) > MANY, "itertools.count|LATER"),
    "a list that is used up": (lambda x: LEFT.pop() < 0, "LEFT"),
    "gradient mode": (lambda x: torch.is_grad_enabled(), "torch.is_grad_enabled"),
    "gradient mode by another name": (lambda x: grad_enabled(), "grad_enabled"),
    "gradient mode by a name in parts": (lambda x: getattr(torch, "is_grad_" + "enabled")(), "the module torch as a value"),
    "gradient mode, bound": (lambda x: BOUND(), "is_grad_enabled"),
    "gradient mode by a context": (previous, r"\.prev"),
    "gradient mode by NumPy": (numpy_of_a_weight, "raises nothing, got RuntimeError"),
    "requires_grad of the input": (lambda x: x.requires_grad, "requires_grad"),
    "requires_grad of a weight": (lambda x: (WEIGHT * 1.0).requires_grad, "requires_grad"),
    "inference": (lambda x: x.is_inference(), "is_inference"),
    "inference mode": (lambda x: torch.is_inference_mode_enabled(), "is_inference"),
    "strides": (lambda x: x.stride()[0] != 4, "stride"),
    "compilation": (lambda x: torch.compiler.is_compiling(), "is_compiling"),
    "tracing": (lambda x: torch.jit.is_tracing(), "is_tracing"),
    "who records functions": (lambda x: torch._C._len_torch_function_stack() == 0, "_len_torch_function_stack"),
    "who overrides functions": (lambda x: not torch.overrides.has_torch_function((x,)), "has_torch_function"),
    "the class of the input": (lambda x: type(x) is torch.Tensor and bool(x.abs().max() > FAR), "max at"),
    "frames": (lambda x: sys._getframe().f_back is None, "sys._getframe"),
    "a traceback": (traceback, "__traceback__"),
    "who traces": (lambda x: sys.gettrace() is None, "sys.gettrace"),
    "the clock": (lambda x: time.time() > 2e12, "time.time"),
    "the clock, imported inside": (imported, "clock"),
    "the clock, remembered": (lambda x: remembered_clock() > 2e12, "time.time"),
    "the clock in a dictionary": (lambda x: FUNCTIONS["now"]() > 2e12, "FUNCTIONS"),
    "random": (lambda x: random.random() < 1e-9, "random"),
    "random of torch": (lambda x: torch.rand(()) < 1e-9, "aten.rand"),
    "random of NumPy, shared": (lambda x: np.random.rand() < 1e-9, "np.random.rand"),  # noqa: NPY002
    "the clock of the system": (lambda x: SYSTEM_CLOCK(None) > 2 * 10**12, "SYSTEM_CLOCK"),
    "random of NumPy": (lambda x: GENERATOR.random() < 1e-9, "Generator"),
    "the environment": (lambda x: os.environ.get("MISLEADING"), "os.environ"),
    "threads": (lambda x: threading.current_thread().name == "other", "thread|get_ident"),
    "a thread's own": (lambda x: getattr(CONTEXT, "calls", 0), "_local|CONTEXT"),
    "the default dtype": (lambda x: torch.get_default_dtype() != torch.float32, "get_default_dtype"),
    "a setting of torch": (lambda x: torch.backends.mkldnn.enabled, "torch.backends.mkldnn.enabled"),
    "memory that nobody wrote": (lambda x: torch.empty(9).max() == 7.25, "torch.empty"),
    "an address": (lambda x: id(x) % 997 == 3, "got id in"),
    "a hash": (lambda x: hash("x") % 997 == 3, "got hash in"),
    "an error that it catches": (swallowing, "max at"),
    "text": (lambda x: "e+03" in f"{x}", "reads numbers of its input"),
    "numbers, copied": (lambda x: BUFFER.copy_(x).max() > FAR, "copy at"),
    "numbers through NumPy": (lambda x: np.from_dlpack(Pointer(torch.utils.dlpack.to_dlpack(x))).max() > FAR, "dlpack"),
}
"""What a forward pass may decide on, and what is said of it."""
MISLEADING: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a function with a name of torch": (lambda x: tanh(F.linear(x, W)), "another library"),
    "a weight with operations of its own": (lambda x: F.linear(x, W.as_subclass(Quantised)), "Quantised"),
    "numbers read through DLPack": (through_dlpack, "can be followed"),
    "as many times as there are rows": (lambda x: F.linear(x, W) * x.shape[0], "number of rows"),
    "where": (lambda x: torch.where(x > FAR, 50.0 * x, F.linear(x, W)), "gt at"),
    "a module that knows the clock": (Clock(), "now"),
    "a function that knows of gradients": (Gradients.apply, "needs_input_grad"),
    **{name: (partial(decided, decide), why) for name, (decide, why) in DECIDES.items()},
}


@pytest.mark.parametrize("name", MISLEADING)
def test_what_may_be_steep_elsewhere_is_refused(name: str) -> None:
    function, why = MISLEADING[name]
    with pytest.raises(ModuleError, match=why):
        read(function, None, (4,), W)


class Usual(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """What the code of honest networks does: loops, options, shapes, imports, names that are computed, contexts, caches."""

    def __init__(self, kind: str = "tanh") -> None:
        super().__init__()
        self.kind, self.scale, self.kinds = kind, 0.5, {"relu": torch.relu, "tanh": F.tanh}
        self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(2))
        self.extra0 = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(4, 4)).eval()
        self.log: Any = None

    def forward(self, x: Any) -> Any:
        from torch.nn import functional

        if x.ndim != 2 or x.shape[-1] != 4 or not isinstance(x, torch.Tensor) or not torch.is_tensor(x):
            raise ValueError(f"expected rows of 4 numbers, got {x.shape}")
        rows, width = x.shape
        z = x.view(rows, 2, width // 2).reshape(x.size(0), -1).to(x.dtype)
        for i, layer in enumerate(self.layers):
            z = self.kinds[self.kind](layer(z)) if i == 0 else functional.silu(layer(z))
        if self.training and self.log is not None:
            self.log.append(time.time())
        with torch.set_grad_enabled(True):
            w = next(self.extra0.parameters()).new_ones(4) * math.sqrt(np.prod(x.shape[1:])) / 2
        return self.scale * getattr(self, f"extra{0}")(w * z) + factor(width) * x


@lru_cache
def factor(width: int) -> float:
    return 1.0 / width


def test_the_code_of_honest_networks_is_read() -> None:
    g = read(net := Usual().eval(), net, (4,), torch.zeros(4))
    assert g.event_shape == (4,)
    assert sys.gettrace() is None or "coverage" in sys.modules


def test_an_operator_is_known_by_its_library() -> None:
    with torch.library._scoped_library("misleading", "DEF") as library:
        library.define("tanh(Tensor x) -> Tensor")
        library.impl("tanh", steep, "CompositeExplicitAutograd")
        with pytest.raises(ModuleError, match="another library"):
            read(lambda x: torch.ops.misleading.tanh(F.linear(x, W)), None, (4,), W)
    assert read(lambda x: torch.ops.aten.tanh(F.linear(x, W)), None, (4,), W).layers[-1].name == "tanh"


def projection(x: Any) -> Any:
    """x − its mean: singular, though the float32 nearest 1/41 is below it, so that 41 times it is below 1."""
    return x - x.mean(1, keepdim=True).expand(-1, 41) * 1.0


def vanishing(x: Any) -> Any:
    return x - (x / 41.0) * 41.0


@pytest.mark.parametrize("forward", [projection, vanishing])
def test_a_constant_that_is_rounded_makes_no_singular_map_a_bijection(forward: Callable[[Any], Any]) -> None:
    subject = Subject(name="singular", event_shape=(41,), forward=forward, lipschitz=0.99999997, framework="torch", dtype="float32")
    found = {c.id: c for c in audit(subject, budget="quick", select=["lipschitz.proved", "inverse.contraction-proved"]).checks}
    assert found["inverse.contraction-proved"].status == "skipped", found["inverse.contraction-proved"].message
    assert all(c.evidence["proved_bound"] >= 1.0 for c in found.values())
