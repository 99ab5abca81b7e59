"""A hostile argument gets one clear error, or what comes is true: every public callable, every kind of argument, thousands of calls."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hostile_arguments import Call, calls, public, targets

import iresnet_ref as ir
from iresnet_ref.errors import IResNetError

CPU_SECONDS = 5.0
MESSAGE = re.compile(r"expected .*, got .*(;|: |try )", re.S)


def numbers(result: Any) -> Iterator[Any]:
    """Yield the floating arrays and numbers that a result consists of."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        for field in dataclasses.fields(result):
            yield from numbers(getattr(result, field.name))
    elif isinstance(result, Mapping):
        for part in result.values():
            yield from numbers(part)
    elif isinstance(result, tuple | list):
        for part in result:
            yield from numbers(part)
    elif isinstance(result, float) or (isinstance(result, np.ndarray) and result.dtype.kind == "f"):
        yield result


def true_jacobian(block: Any, x: Any) -> Any:
    """J_F at each row by central differences of g in float64: an oracle of its own, good to 1e-8."""
    d, h = x.shape[1], 1e-5
    columns = [(block.branch(x + h * e) - block.branch(x - h * e)) / (2.0 * h) for e in np.eye(d)]
    return np.eye(d) + np.stack(columns, axis=-1)


def exact_logdet(a: dict[str, Any], found: Any) -> bool:
    is_block = isinstance(a["F"], ir.ResidualBlock)
    if found.method != "exact" or not is_block or np.abs(a["x"]).max(initial=0.0) > 1e3:  # differences see nothing there
        return True
    truth = np.linalg.slogdet(true_jacobian(a["F"], a["x"]))[1]
    return bool(np.all(np.abs(found.value - truth) <= 1e-6))


def converged_inverse(a: dict[str, Any], found: Any) -> bool:
    if not isinstance(a["F"], ir.ResidualBlock):
        return True
    g = a["F"].branch(found.x)
    left, sizes = np.linalg.norm(a["y"] - found.x - g, axis=1), [np.linalg.norm(v, axis=1) for v in (a["y"], found.x, g)]
    allowed = max(float(a.get("rtol") or 1e-6), 1e-14) * sum(sizes)
    return bool(np.all(~found.converged | (left <= allowed)))


def normalised_weight(a: dict[str, Any], found: Any) -> bool:
    return not isinstance(found, np.ndarray) or bool(
        np.linalg.norm(found.astype(np.float64), a.get("norm", 2.0)) <= float(a["c"]) * (1.0 + 1e-12)
    )


def bounds_of_logdet(a: dict[str, Any], found: Any) -> bool:
    L = float(a["lipschitz"])
    return np.allclose(found, [a["d"] * math.log(1.0 - L), a["d"] * math.log(1.0 + L)], rtol=1e-12)


def bound_of_truncation(a: dict[str, Any], found: Any) -> bool:
    L, n = float(a["lipschitz"]), int(a["n"])
    truth = int(a["d"]) * (-math.log1p(-L) - math.fsum(L**k / k for k in range(1, n + 1)))
    return abs(found - truth) <= 1e-12 * max(1.0, truth)


ORACLES: dict[str, Callable[[dict[str, Any], Any], bool]] = {
    "logdet": exact_logdet,
    "invert": converged_inverse,
    "normalise": normalised_weight,
    "logdet_bounds": bounds_of_logdet,
    "truncation_bound": bound_of_truncation,
    "dequantise": lambda a, found: np.array_equal(np.floor(found), a["x"]),
}
"""(arguments, result) ↦ whether float64 arithmetic of the test's own agrees, where that is cheap."""


def may_hold_nan(call: Call) -> bool:
    """Whether NaN is no answer made up: an object holds what it was given, a density is NaN at NaN, 1e308 leaves the range."""
    is_object = isinstance(public().get(call.name), type)
    return is_object or call.name.endswith((".log_prob", ".posterior")) or "huge" in call.told


def examine(call: Call) -> str | None:
    """Return what is wrong with how a call ended, None if nothing is."""
    begun = time.process_time()
    try:
        with np.errstate(all="raise"):  # whoever asks NumPy to raise gets what everybody gets
            result = call.run()
    except (IResNetError, ValueError, TypeError) as error:
        wrong = None if MESSAGE.search(str(error)) else f"{type(error).__name__}: {str(error)[:200]}"
    except Exception as error:
        wrong = f"{type(error).__name__}: {str(error)[:200]}"
    else:
        agrees = ORACLES[call.name](call.arguments, result) if call.name in ORACLES else True
        wrong = None if agrees else f"an oracle contradicts {result}"
        if wrong is None and not may_hold_nan(call) and any(np.isnan(n).any() for n in numbers(result)):
            wrong = "NaN came back"
    spent = time.process_time() - begun
    return f"{spent:.1f} s" if spent > CPU_SECONDS else wrong


def examined(seed: int, pairs: int) -> tuple[int, list[str]]:
    """Return how many calls were made, and what was wrong with them."""
    made, wrong = 0, []
    for call in calls(seed, pairs):
        made += 1
        found = examine(call)
        if found is not None:
            wrong.append(f"{call.name}({call.told}): {found}")
    return made, wrong


@pytest.mark.filterwarnings("ignore")  # np.matrix is pending its end since long; what else warns is a result, and looked at
@pytest.mark.parametrize(("seed", "pairs"), [(0, 2), pytest.param(1, 40, marks=pytest.mark.thorough)])
def test_hostile_arguments_are_refused_or_answered_truly(seed: int, pairs: int) -> None:
    made, wrong = examined(seed, pairs)
    assert made >= 20_000
    assert not wrong, f"{len(wrong)} of {made} calls:\n" + "\n".join(wrong[:40])


# Weights that hold NaN give an error at the first call, not NaN.
def test_weights_of_nan_are_an_error_where_they_are_used() -> None:
    good = ir.mlp((2, 4, 2))
    for key, p in good.parameters().items():
        bad = ir.ResidualBlock(good.with_parameters({**good.parameters(), key: np.full(p.shape, math.nan)}))
        for call in (bad, lambda x, bad=bad: ir.invert(bad, x), lambda x, bad=bad: ir.logdet(bad, x), ir.Flow([bad]).log_prob):
            with pytest.raises((ir.NonFiniteError, ir.NotContractiveError), match=r"expected .*, got"):
                call(np.ones((3, 2)))


@pytest.mark.parametrize("name", ["FactorOut", "Flow", "ResidualBlock", "logdet", "invert", "logdet_gradient"])
def test_empty_batches_work(name: str) -> None:
    block, x = ir.ResidualBlock(ir.mlp((2, 4, 2))), np.zeros((0, 2))
    flow = ir.Flow([ir.bijections.ActNorm(np.zeros(2), np.zeros(2), (2,)), block])
    found = {
        "FactorOut": lambda: ir.bijections.FactorOut((4,), [block]).forward(np.zeros((0, 4))),
        "Flow": lambda: (flow.log_prob(x), flow.log_prob_and_gradient(x), flow.inverse(x), flow.sample(0)),
        "ResidualBlock": lambda: (block(x), block.pullback(x, y_bar=x)),
        "logdet": lambda: [ir.logdet(block, x, method=m) for m in ("exact", "roulette", "auto")],
        "invert": lambda: [ir.invert(block, x, method=m) for m in ("auto", "banach", "newton", "anderson")],
        "logdet_gradient": lambda: [ir.logdet_gradient(block, x, method=m) for m in ("exact", "roulette", ir.Series(4))],
    }[name]()
    assert all(np.asarray(n).shape[:1] in {(0,), (2,), (4,), ()} for n in numbers(found))
    assert not any(np.isnan(n).any() for n in numbers(found))


# What fits is taken: else every call above would be refused for the same mistake.
def test_what_fits_is_taken_by_every_public_callable() -> None:
    for name, target, arguments in targets():
        assert target(**arguments) is not ..., name
    assert len(public()) >= 60
