"""Groups of certificates: the proof of a norm, anew and warm, beside a singular value decomposition and one power iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from timing import Group, Times, in_turn

import iresnet_ref as ir

SIDES = (128, 512)


def groups() -> Iterator[Group]:
    """Yield the groups of this file."""
    for n in SIDES:
        note = "one power iteration proves nothing and is here for scale"
        yield Group(f"norm of a {n}×{n} matrix", "numpy.linalg.norm", partial(norms, n), note=note)


def norms(n: int) -> Times:
    """Time what is known of ‖W‖₂."""
    rng = np.random.default_rng(0)
    w, zeros = rng.standard_normal((n, n)), np.zeros(n)
    raw = ir.mlp((n, n), lipschitz=0.9).with_parameters({"0.weight": w, "0.bias": zeros})
    moved = {"0.weight": w + 1e-3 * rng.standard_normal((n, n)), "0.bias": zeros}
    warm = ir.NormalisedBranch(raw, 0.9, warm={})
    first = warm.branch  # with the proof that the next begins with
    if not first.certificate.bound <= 0.9:
        raise AssertionError(f"expected a proved bound of at most .9, got {first.certificate.bound}")
    v = rng.standard_normal(n)

    def power() -> Any:
        u = w @ v
        back = w.T @ (u / np.linalg.norm(u))
        return back / np.linalg.norm(back)

    work: dict[str, Callable[[], Any]] = {
        "numpy.linalg.norm": lambda: np.linalg.norm(w, 2),
        "division and proof, anew": lambda: ir.NormalisedBranch(raw, 0.9).branch,
        "division and proof, warm": lambda: warm.with_parameters(moved).branch,
        "one power iteration": power,
    }
    return in_turn(work, rounds=11)
