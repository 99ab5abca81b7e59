"""Functions that look contractive where they are looked at, and are not: no proof may pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

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


MISLEADING: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a function with a name of torch": (lambda x: tanh(F.linear(x, W)), "another library"),
    "a weight with operations of its own": (lambda x: F.linear(x, W.as_subclass(Quantised)), "Quantised"),
    "numbers read through DLPack": (through_dlpack, "can be followed"),
    "another map of one event alone": (lambda x: F.linear(x, W) * (50.0 if len(x) == 1 else 1.0), "to compute what the module computes"),
}


@pytest.mark.parametrize("name", MISLEADING)
def test_what_may_be_steep_elsewhere_is_refused(name: str) -> None:
    function, why = MISLEADING[name]
    with pytest.raises(ModuleError, match=why):
        read(function, None, (4,), W)


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
