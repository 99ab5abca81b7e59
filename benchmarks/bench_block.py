"""Forward, exact log-det, an unbiased estimate and the inverse at equal true error, beside normflows and plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from contenders import SHAPES, TRUE_ERROR, Contenders, contenders

import iresnet_ref as ir

Work = Callable[[], Any]


def forward(c: Contenders) -> dict[str, Work]:
    def plain() -> Any:
        with torch.no_grad():
            return c.tx + c.plain(c.tx)

    def normflows() -> Any:
        with torch.no_grad():
            return c.tx + c.normflows.iresblock.nnet(c.tx)

    return {
        "reference on NumPy": lambda: c.numpy(c.x),
        "reference on torch": lambda: c.torch(c.tx),
        "normflows": normflows,
        "plain torch": plain,
    }


def exact_logdet(c: Contenders) -> dict[str, Work]:
    d = c.x.shape[1]
    jacobian = torch.func.vmap(torch.func.jacrev(c.plain))

    def plain() -> Any:
        return torch.linalg.slogdet(torch.eye(d, dtype=torch.float64) + jacobian(c.tx))[1]

    return {
        "reference on NumPy": lambda: ir.logdet(c.numpy, c.x, method="exact").value,
        "reference on torch": lambda: ir.logdet(c.torch, c.tx, method="exact").value,
        "plain torch": plain,
    }


def unbiased_logdet(c: Contenders) -> dict[str, Work]:
    """One estimate a row, each with its own default law (their variances differ: this compares time alone)."""

    def normflows() -> Any:
        return c.normflows.iresblock._logdetgrad(c.tx)[1].detach()

    return {
        "reference on NumPy": lambda: ir.logdet(c.numpy, c.x, method="roulette").value,
        "reference on torch": lambda: ir.logdet(c.torch, c.tx, method="roulette").value,
        "normflows": normflows,
    }


def inverse(c: Contenders) -> dict[str, Work]:
    """Each with the loosest tolerance of its own that reaches the true error."""
    truth = ir.invert(c.numpy, c.y, rtol=1e-14, throw=False).x
    ty = torch.from_numpy(c.y)

    def ours(block: ir.ResidualBlock, y: Any) -> Callable[[float], Any]:
        return lambda rtol: ir.invert(block, y, rtol=rtol).x

    def theirs(tolerance: float) -> Any:
        with torch.no_grad():
            return c.normflows.iresblock._inverse_fixed_point(ty, atol=tolerance, rtol=tolerance)

    def loosest(solve: Callable[[float], Any]) -> Work:
        for exponent in range(3, 14):
            if np.abs(np.asarray(solve(10.0**-exponent)) - truth).max() <= TRUE_ERROR:
                return lambda: solve(10.0**-exponent)
        raise AssertionError(f"no tolerance reaches a true error of {TRUE_ERROR}")

    return {
        "reference on NumPy": loosest(ours(c.numpy, c.y)),
        "reference on torch": loosest(ours(c.torch, ty)),
        "normflows": loosest(theirs),
    }


TASKS: dict[str, Callable[[Contenders], dict[str, Work]]] = {
    "forward": forward,
    "exact log-det": exact_logdet,
    "unbiased log-det": unbiased_logdet,
    "inverse": inverse,
}
NAMES = {
    "forward": ["normflows", "plain torch"],
    "exact log-det": ["plain torch"],
    "unbiased log-det": ["normflows"],
    "inverse": ["normflows"],
}
CASES = [
    pytest.param(task, shape, contender, id=f"{task}-{shape}-{contender}")
    for task in TASKS
    for shape in SHAPES
    for contender in ("reference on NumPy", "reference on torch", *NAMES[task])
    if not (task == "exact log-det" and "784" in shape and contender == "plain torch")  # seconds a call
    if not (task == "unbiased log-det" and "d=2" in shape and contender == "normflows")  # there it is exact, by formula
]


@pytest.mark.parametrize(("task", "shape", "contender"), CASES)
def test_block(benchmark: Any, task: str, shape: str, contender: str) -> None:
    work = TASKS[task](contenders(shape))[contender]
    benchmark.group = f"{task}, {shape}"
    benchmark.pedantic(work, rounds=7, warmup_rounds=1)
