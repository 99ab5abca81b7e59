"""Constructor arguments: another value makes another network, at the same parameters.

Two networks are built by `fresh`, from one seed: with the arguments as they are, and with one of them changed. Both get the parameters as
delivered wherever names and shapes agree, moved alike, so that bounds which are idle at initialisation are at work: p itself,
p + rms(p)·n and 10(p + rms(p)·n), n standard normal. What is left of a difference is the argument's. Buffers stay as each
network built them: a coefficient may be one.

The spread of a random log-det is compared by θ = P(|X₁ − X₂| > |Y₁ − Y₂|) + ½P(=), X and Y independent draws of the two networks at
one x: ½ where the argument changes nothing, (2/π) arctan(s_X/s_Y) for normal draws. Each call gives a number in [0, 1], so that the betting
sequence is valid whatever the draws are: they act where it excludes ½, and do not where it lies within ½ ± `EPSILON`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import Rows, context_of, gap
from iresnet_verify.catalogue.shared.map_errors import attempt, norms
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.expectation.sampling import CALLS, replicates
from iresnet_verify.statistics import confidence_sequences as sequences
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.frameworks import OPERATIONS
from iresnet_verify.subject.fresh import build_fresh
from iresnet_verify.subject.module_state import has_modes, is_torch_module, set_mode

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

EPSILON = 0.05
"""A θ this near to ½ is that of normal draws whose standard deviations differ by at most 17 %."""
PAIRS = (96, 3 * CALLS)
"""Pairs of draws after which the spreads are compared, each time at half of the error rate."""
MOVES = {"as delivered": (1.0, 0.0), "moved": (1.0, 1.0), "moved and × 10": (10.0, 1.0)}
"""Name -> (a, b): the parameters become a·(p + b·rms(p)·n)."""
MAGNITUDES = (1.0, 10.0, 100.0)


@dataclass
class Seen:
    """What was compared of one argument."""

    name: str
    what: str
    compared: int = 0
    moved: bool = False
    """Whether something was compared at moved parameters."""
    acts: str = ""
    """Where the argument was seen to act."""
    rounding: bool = False
    """Whether the numbers differ, by rounding alone."""
    random: bool = False
    """Whether a log-det that should vary did."""
    undecided: str = ""
    refused: list[str] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Whether the argument changes nothing."""
        return not (self.acts or self.undecided or self.rounding) and self.moved

    @property
    def note(self) -> str:
        """The finding in a few words."""
        if self.acts:
            return f"acts on {self.what}: {self.acts}"
        if self.undecided:
            return self.undecided
        if self.rounding:
            return f"changes {self.what} by rounding alone, in {self.compared} comparisons"
        if self.moved:
            return f"changes nothing of {self.what}, in {self.compared} comparisons"
        return "nothing could be compared at moved parameters" + "".join(f"; {r}" for r in self.refused)


@check(
    "state.arguments-act",
    claim="A constructor argument acts on what it is said to act on: with another value and the same parameters, forward, the inverse, "
    "the log-det or its variance is another one.",
    reference="arguments of the subject: {name: (another value, what it acts on)}", kind="equivalence", needs=("arguments", "fresh"),
    modes=False, statistical=True,
    cost="two new networks for each argument, up to 9 evaluations of each a mode; 192 to 768 calls of each for a variance",
    catches="coefficients, depths, tolerances and numbers of probes that are stored and never read",
)
def arguments_act(ctx: Context) -> Outcome:
    """Two networks with the same parameters, as delivered and moved, at inputs of three magnitudes; one suffices.

    Of the inverse a failure that only one of them reports is a difference. An argument that acts on initial parameters alone changes
    nothing here.
    """
    x = ctx.inputs(ctx.rows)
    found = [_seen(ctx, x, name, other, what) for name, (other, what) in ctx.subject.arguments.items()]
    evidence: dict[str, Any] = {"compared": sum(s.compared for s in found), **{s.name: s.note for s in found}}
    how = (f"forward and inverse {4 * OPERATIONS}u(‖a‖ + ‖b‖ + √d), log-det {4 * OPERATIONS}u(d + |ℓ|); θ within ½ ± {EPSILON} at "
           "error rate α for a variance that is the same")
    oracle = "the network that fresh() builds without the argument"
    idle = [s for s in found if s.idle]
    if idle:
        names = "; ".join(f"{s.name} {s.note}" for s in idle)
        return Outcome("failed", f"expected another value of a constructor argument to make another network, got: {names}; use it, or list "
                       "another value at which it acts", evidence, how, oracle, Counterexample({"x": x}))
    vague = [s for s in found if not s.acts]
    if vague:
        return Outcome("inconclusive", "; ".join(f"{s.name} {s.note}" if s.rounding else f"{s.name}: {s.note}" for s in vague)
                       + "; try a value that is farther from the own", evidence, how, oracle)
    return Outcome("passed", "; ".join(f"{s.name} {s.note}" for s in found), evidence, how, oracle)


def _seen(ctx: Context, x: HostArray, name: str, other: Any, what: str) -> Seen:
    seen = Seen(name, what)
    modes = ctx.subject.modes if has_modes(ctx.subject.module) else (ctx.mode,)
    for mode in reversed(modes):
        for move, (factor, noise) in MOVES.items():
            where = move if len(modes) == 1 or mode is None else f"{move}, {mode} mode"
            here = replace(ctx, mode=mode, alpha=ctx.alpha / (len(ctx.subject.arguments) * len(modes)))
            try:
                own, changed = _built(here), _built(here, **{name: other})
                can_move = _loaded(ctx, own, changed, factor, noise)
            except SubjectError:
                raise
            except Exception as error:  # a parameter that is a rate or a probability is none any more
                seen.refused.append(f"{where}: {type(error).__name__}")
                continue
            if what == "variance" and move != "moved":
                continue  # one comparison a mode: each spends its share of α
            before = seen.compared
            acts = (_spread if what == "variance" else _values)(seen, own, changed, x)
            seen.moved |= seen.compared > before and can_move and noise > 0.0
            if acts:
                seen.acts = f"{acts} ({where})"
                return seen
    if what == "variance" and not seen.random and not seen.undecided:
        seen.undecided = "the log-det is not random in any mode"
    return seen


def _built(ctx: Context, **arguments: Any) -> Context:
    """A new network in the mode of the context, used once: layers may initialise themselves from the first batch they see."""
    ctx.framework.seed(0)
    made = build_fresh(ctx.subject, **arguments)
    set_mode(made.module, ctx.mode)
    other = context_of(ctx, made)
    other.framework.seed(0)
    other.raw_forward(other.native(replace(ctx).inputs(ctx.rows)))
    return other


def _loaded(ctx: Context, own: Context, changed: Context, factor: float, noise: float) -> bool:
    """Give both networks the parameters of the subject, moved alike, where names and shapes agree; whether there are any."""
    modules = [c.subject.module for c in (own, changed)]
    given = False
    if is_torch_module(ctx.subject.module) and all(map(is_torch_module, modules)):
        import torch

        rng = np.random.default_rng(0)
        tables = [dict(m.named_parameters()) for m in modules]
        with torch.no_grad():
            for name, p in ctx.subject.module.named_parameters():
                value = p.detach()
                if p.requires_grad and p.is_floating_point() and p.numel():
                    n = torch.as_tensor(rng.standard_normal(tuple(p.shape)), dtype=p.dtype, device=p.device)
                    value = factor * (value + noise * (value.square().mean().sqrt() + 0.01) * n)
                    given = True
                for table in tables:
                    if name in table and table[name].shape == value.shape:
                        table[name].copy_(value)
    for c in (own, changed):
        if c.subject.refresh is not None:
            c.subject.refresh()
    return given


def _values(seen: Seen, own: Context, changed: Context, x: HostArray) -> str:
    """Compare at inputs of three magnitudes; return where the argument acts, "" where it does not."""
    for magnitude in MAGNITUDES:
        at = (magnitude * x).astype(x.dtype)
        size: Any = 1.0
        try:
            if seen.what == "inverse":
                y = own.f.forward(at, seed=0)
                y = y[np.isfinite(y.reshape(len(y), -1)).all(axis=1)]
                a, unsolved, _ = attempt(own, y)
                b, other_unsolved, _ = attempt(changed, y)
                if (unsolved != other_unsolved).any():
                    seen.compared += len(y)
                    return f"a failure at inputs × {magnitude:g} that one network reports and the other does not"
                a, b = a[~unsolved], b[~unsolved]
            elif seen.what == "forward":
                a, b = (c.f.forward(at, seed=0) for c in (own, changed))
            else:
                if own.f.log_det is None or changed.f.log_det is None:
                    raise SubjectError(f"arguments: expected a log-det for {seen.name!r} to act on, got none; try log_det=…")
                a, b = (c.evaluate_log_det(at, 0) for c in (own, changed))
                size = own.d
        except SubjectError:
            raise
        except Exception as error:
            seen.refused.append(f"inputs × {magnitude:g}: {type(error).__name__}")
            continue
        apart = gap(a, b)
        finite = np.isfinite(a.reshape(len(a), -1)).all(axis=1) & np.isfinite(b.reshape(len(b), -1)).all(axis=1)
        seen.compared += int(finite.sum())
        size = size if seen.what == "log_det" else norms(b) + np.sqrt(own.d)
        with np.errstate(invalid="ignore"):
            moved = np.flatnonzero(apart > 4 * OPERATIONS * own.u * (norms(a) + size))
        if len(moved):
            return f"by up to {_largest(apart[moved]):.2g} at inputs × {magnitude:g}"
        seen.rounding |= bool((apart > 0.0).any())
    return ""


def _largest(apart: Rows) -> float:
    known = apart[np.isfinite(apart)]
    return float(known.max()) if len(known) else np.inf


def _spread(seen: Seen, own: Context, changed: Context, x: HostArray) -> str:
    """Compare the spread of random log-dets; return how they differ, "" where they do not."""
    if own.f.log_det is None or changed.f.log_det is None:
        raise SubjectError(f"arguments: expected a random log-det for {seen.name!r} to act on, got none; try log_det=…")
    many = np.tile(x, (max(1, 2 * replicates(own) // len(x)), *[1] * (x.ndim - 1)))
    first = [own.evaluate_log_det(many, seed) for seed in range(4)]
    same = all(np.array_equal(a, changed.evaluate_log_det(many, seed)) for seed, a in enumerate(first))
    if all(np.array_equal(first[0], a) for a in first[1:]):
        return ""  # not random in this mode
    seen.random, seen.compared = True, seen.compared + len(first) * len(many)
    if same:
        return ""  # draw for draw
    how, scores = "", np.empty(0)
    for pairs in PAIRS:
        wanted = 2 * (pairs - len(scores))
        draws = np.stack([[c.evaluate_log_det(many, int(own.rng.integers(2**31))) for _ in range(wanted)] for c in (own, changed)])
        if not np.isfinite(draws).all():
            seen.undecided = "its log-dets are not finite at moved parameters"
            return ""
        seen.compared += draws[0].size
        apart = np.abs(draws[:, ::2] - draws[:, 1::2])
        scores = np.concatenate([scores, ((apart[0] > apart[1]) + 0.5 * (apart[0] == apart[1])).mean(axis=1)])
        low, high = sequences.betting(scores, 0.0, 1.0, own.alpha / len(PAIRS)).last
        how = f"P(spread larger) = {scores.mean():.3f}, in {low:.3f} to {high:.3f}"
        if low > 0.5 or high < 0.5:
            return how
        if low >= 0.5 - EPSILON and high <= 0.5 + EPSILON:
            return ""
    seen.undecided = f"{how}: neither ½ nor within ½ ± {EPSILON}"
    return ""
