"""A gradient with respect to the parameters, compared with differences along directions: its own, and random ones.

Along its own direction a gradient of the right size and a wrong direction shows; along random ones what is missing from it. A pass
needs a difference that is known to a tenth of the largest slope met: what is known no better says nothing.

At a kink (a maximum whose sides are equal, as after a division by max(1, σ/c)) the one-sided derivatives differ; a backward pass
may give any number between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.slopes import SAFE, Slope, rounding, slope
from iresnet_verify.check.verdict import Comparison, verdict

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.check.outcome import Counterexample, Outcome

RANDOM = {"quick": 2, "standard": 3, "thorough": 6}
"""Random directions, by budget."""
LENGTH = 0.1
"""Of a direction, in each tensor."""
SHARE = 0.1
"""What a pass may leave open, of the largest slope."""
UNCLEAR = 4.0
"""Up to this many bounds a gap proves nothing: the error of differences is an estimate."""


@dataclass(frozen=True)
class Along:
    """One direction: what the backward pass says, and what differences say."""

    backward: float
    slope: Slope
    rounded: float = 0.0
    """What the backward pass may lose to rounding where the differences are those of a wider dtype."""

    @property
    def gap(self) -> float:
        """How far the two lie apart; infinite where the backward pass is not finite."""
        gap = abs(self.backward - self.slope.value)
        return gap if np.isfinite(gap) else np.inf

    @property
    def bound(self) -> float:
        """How far they may lie apart."""
        return 4.0 * self.slope.error + 0.5 * self.slope.kink + self.rounded


def along_directions(
    ctx: Context, named: Sequence[tuple[str, Any]], gradients: Sequence[Any], number: Callable[[], float], floor: float,
    moved: Sequence[Any] | None = None, guard: Callable[[], AbstractContextManager[None]] | None = None, blur: float = 0.0,
) -> list[Along]:
    """Compare the gradients of `number`() with its differences as the parameters move.

    `named` are the subject's parameters. `moved`, the parameters that move (those of its float64 copy, say), and `guard`, which puts
    them back, are by default the subject's own. `floor` is the least rounding of one value of the number, `blur` that of the
    gradients in the 2-norm where they are of a narrower dtype than what moves.
    """
    import torch

    tensors = [p for _, p in named] if moved is None else list(moved)
    around = ctx.guard if guard is None else guard
    owned = [torch.zeros_like(p) if g is None else g.detach() for (_, p), g in zip(named, gradients, strict=True)]
    directions = [[torch.as_tensor(ctx.rng.standard_normal(tuple(p.shape)), dtype=torch.float64) * (LENGTH / p.numel() ** 0.5)
                   for _, p in named] for _ in range(RANDOM[ctx.budget.name])]
    size = float(sum(g.double().square().sum() for g in owned)) ** 0.5
    if size > 0.0 and np.isfinite(size):
        directions.append([g.double().cpu() * (LENGTH * len(owned) ** 0.5 / size) for g in owned])
    found = []
    for v in directions:

        def value(h: float, v: list[Any] = v) -> float:
            with around(), torch.no_grad():
                for p, d in zip(tensors, v, strict=True):
                    p.add_((h * d).to(p))
                return number()

        u = torch.finfo(tensors[0].dtype).eps / 2
        noise = max(SAFE * rounding(value, 64.0 * u / LENGTH), floor)
        backward = sum(float((g.double().cpu() * d).sum()) for g, d in zip(owned, v, strict=True))
        length = float(sum(d.square().sum() for d in v)) ** 0.5
        found.append(Along(backward, slope(value, 0.5, noise), blur * length))
    return found


def compare_directions(
    found: Sequence[Along], *, what: str, moves_by_itself: bool, counterexample: Callable[[Comparison], Counterexample],
) -> Outcome:
    """Judge them. `moves_by_itself`: state that no backward pass sees may follow the parameters, so that a small gap proves nothing."""
    scale = max((abs(a.slope.value) for a in found if np.isfinite(a.slope.value)), default=0.0)
    scale = max([scale, *(abs(a.backward) for a in found if np.isfinite(a.backward))])
    bounds = []
    for a in found:
        known = a.bound <= SHARE * scale or scale <= a.bound <= 1e-6
        missing = a.gap > 0.5 * abs(a.slope.value) or a.backward == 0.0
        clear = a.gap > UNCLEAR * a.bound and (missing or not moves_by_itself)
        bounds.append(a.bound if (a.gap <= a.bound and known) or clear else np.inf)
    gaps = [a.gap for a in found]
    first = next((a for a, b in zip(found, bounds, strict=True) if np.isinf(b)), found[0])
    outcome = verdict(
        gaps, bounds,
        expected=lambda at: f"the derivative {found[at.row].slope.value:.6g} of {what} along a direction of the parameters",
        got=lambda at: f"{found[at.row].backward:.6g}",
        passed=lambda at: f"right to {at.largest:.2g} along {at.compared} directions",
        undecided=f"backward gives {first.backward:.6g}, differences {first.slope.value:.6g} ± {first.bound:.1g}: kinks, rounding, or "
        "vectors of a power iteration that move with the parameters",
        tolerance="4·(error of the differences, rounding measured) + half the difference of one-sided derivatives + rounding of the pass "
        "where the differences are those of a float64 copy",
        oracle="differences along random directions and along the gradient itself",
        evidence={"derivative": found[0].slope.value, "backward": found[0].backward, "directions": len(found)},
        counterexample=counterexample,
    )
    if outcome.status == "passed" and all(np.isinf(b) for b in bounds[:-1]):
        return verdict(gaps, np.inf, expected="", passed="", tolerance="", oracle=outcome.oracle, evidence=outcome.evidence,
                       undecided=f"only along its own direction is the gradient known: backward gives {first.backward:.6g}, differences "
                       f"{first.slope.value:.6g} ± {first.bound:.1g}")
    return outcome
