"""The one `detach`, `no_grad` or `data` of the subject's code without which a gradient is that of its values.

A gradient is compared with central differences of the same values, along random directions of x and of the parameters together, so
that nothing but the code is asked what is right.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import SPARE, Explanation
from iresnet_verify.diagnosis.trials.code_changes import CUTS, Change, changes_of, functions_of
from iresnet_verify.diagnosis.trials.confinement import StoppedError, can_be_stopped, confined, held_by, kept, limited
from iresnet_verify.diagnosis.trials.repairs import LONGER, REPAIR, SHOWN
from iresnet_verify.subject.module_state import is_torch_module, preserved
from iresnet_verify.subject.subject import HostArray

WORDS = {"forward_gradient": "The gradient of forward", "log_det_gradient": "The gradient of the log-det",
         "inverse_gradient": "The gradient of the inverse"}


def gradient_repairs(case: Case, asked: Collection[str], seconds: float) -> dict[str, Explanation]:
    """{quantity: explanation} of the gradients asked for that one cut less makes right."""
    if not can_be_stopped() or not is_torch_module(case.ctx.subject.module) or case.ctx.framework.name != "torch":
        return {}
    end, found = time.process_time() + seconds, dict[str, Explanation]()
    for name in asked:
        call, at = _call(case, name)
        if call is None or _right(case, call, at):
            continue
        changes = [c for f in functions_of(lambda call=call, at=at: _right(case, call, at)) for c in changes_of(f)  # type: ignore[misc]
                   if c.cut in CUTS]
        with warnings.catch_warnings(), confined():
            warnings.simplefilter("ignore")
            places = {c.place: f"{c.words} in {c.place}" for c in changes if time.process_time() < end and _repairs(case, c, call, at)}
        if 0 < len(places) <= SHOWN:
            found[name] = Explanation(REPAIR, WORDS[name], ", or ".join(places.values()), case.rows, 0.0, 0, "With it the gradient is that "
                                      f"of the values along {2 * SPARE} directions of x and the parameters, to the error of differences.")
    return found


def _call(case: Case, name: str) -> tuple[Callable[[Any], Any] | None, HostArray]:
    ctx = case.ctx
    if name == "forward_gradient":
        return lambda x: ctx.raw_forward(x, seed=SEED)[0], case.x
    if name == "log_det_gradient":
        return (None if ctx.f.log_det is None else lambda x: ctx.raw_log_det(x, seed=SEED)), case.x
    return (None if ctx.f.inverse is None else lambda y: ctx.raw_inverse(y, seed=SEED)), case.y


def _repairs(case: Case, change: Change, call: Callable[[Any], Any], at: HostArray) -> bool:
    """Whether the gradient is right with the change, here and at inputs that are turned, and the values are the same."""
    before = _values(case, call, at)
    try:
        with preserved(case.ctx.subject.module), kept(held_by(case.ctx.subject)), change.made(), limited(LONGER):
            same = np.array_equal(_values(case, call, at), before)
            return same and _right(case, call, at) and _right(case, call, (0.7 * at[::-1]).astype(at.dtype))
    except (Exception, StoppedError):
        return False


def _values(case: Case, call: Callable[[Any], Any], at: HostArray) -> HostArray:
    with case.ctx.guard():
        return case.ctx.host(call(case.ctx.native(at, requires_grad=True)).detach())


def _right(case: Case, call: Callable[[Any], Any], at: HostArray) -> bool:
    """Whether the gradient of a random sum of the values is their slope, along SPARE directions."""
    import torch

    ctx, rng = case.ctx, np.random.default_rng(SEED)
    with ctx.guard(), ctx.framework.call_context():
        leaf = ctx.native(at, requires_grad=True)
        parameters = [p for p in ctx.subject.module.parameters() if p.requires_grad]
        value = call(leaf)
        weights = torch.tensor(rng.standard_normal(tuple(value.shape))).to(value)
        tensors = [leaf, *parameters]
        found = torch.autograd.grad((value * weights).sum(), tensors, allow_unused=True) if value.requires_grad else [None] * len(tensors)
        for _ in range(SPARE):
            ways = [torch.tensor(rng.standard_normal(tuple(t.shape))).to(t) / max(t.numel(), 1) ** 0.5 for t in tensors]
            got = sum(float((g * v).sum()) for g, v in zip(found, ways, strict=True) if g is not None)

            def slope(h: float, ways: list[Any] = ways) -> float:
                ends = []
                for sign in (1.0, -1.0):
                    with torch.no_grad():
                        for p, v in zip(parameters, ways[1:], strict=True):
                            p.add_(sign * h * v)
                    moved = (leaf.detach() + sign * h * ways[0]).requires_grad_()
                    ends.append(float((call(moved).detach() * weights).sum()))
                    with torch.no_grad():
                        for p, v in zip(parameters, ways[1:], strict=True):
                            p.sub_(sign * h * v)
                return (ends[0] - ends[1]) / (2.0 * h)

            h = ctx.u**0.2
            wide, narrow = slope(h), slope(h / 2.0)
            rounding = 8.0 * ctx.u * float(value.detach().abs().sum() + weights.abs().sum()) / h
            if not abs(got - narrow - (narrow - wide) / 3.0) <= 8.0 * (abs(narrow - wide) + rounding):
                return False
    return True
