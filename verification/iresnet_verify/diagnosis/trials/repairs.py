"""The one change of the subject's code that makes wrong numbers right, found by trying (program repair by search: Weimer et al. 2009).

A change of a function (`code_changes`) is a repair where, with it made, the inverse answers F's images, the log-dets are log|det| of F,
and the density is made of both, at independent inputs and to rounding, as far as the subject gives them. No number is fitted. Code that
forward does not run is tried first: what is changed there makes no other map of F.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np

from iresnet_verify.catalogue.shared.map_errors import promised
from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.estimates import ERRORS, expectation
from iresnet_verify.diagnosis.hypothesis import Array, Cause, Explanation
from iresnet_verify.diagnosis.log_dets import Volumes
from iresnet_verify.diagnosis.trials.code_changes import REDUCTIONS, Change, changes_of, functions_of
from iresnet_verify.diagnosis.trials.confinement import (
    Held,
    StoppedError,
    can_be_stopped,
    confined,
    held_by,
    kept,
    limited,
)
from iresnet_verify.diagnosis.volumes import CHEAP, ends
from iresnet_verify.subject.calls import flat
from iresnet_verify.subject.frameworks import OPERATIONS
from iresnet_verify.subject.module_state import is_torch_module, preserved
from iresnet_verify.subject.subject import HostArray

SECONDS = 10.0
"""CPU time of all searches of a subject."""
LONGER = 8.0
"""A trial that takes so many times longer than the wrong answer is stopped: a change may make a loop endless."""
SHOWN = 3
"""Places that are shown; if more repair it, or more other maps F, they say nothing."""

REPAIR = Cause("one-change", "{what} is right with one change of the code: {detail}.", "Look at this line first.")
OF_A_WIDTH = tuple(f"`{a}` for `{b}`" for a in REDUCTIONS for b in REDUCTIONS if a != b)
"""Changes that multiply by a size: at one width that is any number, so of a random series, whose weights are numbers, it proves nothing."""
SMALL, VARIABLES, LARGE, PUT_IN = (0, 1), (3,), (2,), (4,)
"""Ranks of changes, the likeliest first: a sign, number or name; a variable; another operator or an operand left out; a function."""
FAR, MOVED, MANY = 4.0, 0.1, 16
"""A repair by chance fails at MANY times as many inputs, up to FAR times as far out, or with parameters elsewhere by a share MOVED."""
FEW, COPIES, SHARP = 3, 512, 1e-7
"""Rows and draws of a random log-det, and the error a dimension of an expectation that is enumerated sharply."""
CLAIMED = 0.02
"""How far parameters are moved where a bound is claimed of them."""
DERIVED = {"inverse_log_det": ("inverse", "log_det"), "log_prob": ("log_det",)}
"""What is made of others says nothing where these are wrong for a reason that is not known."""
WORDS = {"inverse": "The inverse", "log_det": "log_det", "inverse_log_det": "The log-det of the inverse", "log_prob": "log_prob"}

Quantity = Callable[[Case], Array]
"""|error|/allowed of each row."""


@dataclass(frozen=True)
class Repaired:
    """A change that makes wrong numbers right."""

    change: Change
    done: frozenset[str]
    """What it repairs."""
    another: bool
    """Whether F is another map with it."""
    steady: bool
    """Whether it does so far out and with parameters elsewhere, as what undoes a slip does; a bound may be broken there, or numbers
    overflow."""


@dataclass
class Found:
    """What a search found: of one place one change is shown, but each change of F is another F."""

    repaired: list[Repaired]
    tried: int
    rows: int
    varies: bool = True
    """Whether the log-det depends on x."""


def repairs(case: Case, asked: Collection[str], seconds: float = SECONDS, *, of_forward_alone: bool = False,
            small: Collection[str] = ()) -> dict[str, Explanation]:
    """{quantity: explanation} of those asked for that one change makes right, while what is right stays so.

    `of_forward_alone`: the others agree with each other, and only what forward runs is changed. Of `small` signs, numbers, names and
    variables are changed alone: what makes their numbers is known without.
    """
    end = time.process_time() + seconds
    if not can_be_stopped():
        return {}
    given = {name: ratio for name, ratio in _quantities(case).items() if _answers(ratio, case)}
    right = {name: _right(ratio, case) for name, ratio in given.items()}
    wrong = {name: ratio for name, ratio in given.items() if not right[name]}
    stays = {name: ratio for name, ratio in given.items() if right[name]}
    if not wrong or np.abs(case.truth.value).max() <= 1e6 * case.ctx.u:  # a log-det of 0 is made of anything
        return {}
    base = case.ctx.f.base_log_prob
    taken = [] if base is None or "log_prob" not in given else functions_of(lambda: base(case.y, seed=SEED))  # right by definition
    of_forward = [f for f in functions_of(lambda: case.ctx.f.forward(case.x, seed=SEED)) if f not in taken]
    far = ends(case)[0] if case.ctx.d <= CHEAP else None  # where the log-det is largest and smallest
    scale = 1.5 if case.ctx.subject.inputs is None else 1.0
    elsewhere = np.concatenate([scale * case.ctx.inputs(case.rows), *([] if far is None else [far.x])]).astype(case.x.dtype)
    said: dict[str, Explanation] = {}
    for name, ratio in wrong.items():
        if name not in asked or name in said or any(o not in said and (o in asked or o in wrong) for o in DERIVED.get(name, ())):
            continue
        used = [f for f in functions_of(lambda ratio=ratio: ratio(case)) if f not in taken]  # type: ignore[misc]
        trials = Trials(case, name, wrong, stays, elsewhere, end)
        with warnings.catch_warnings(), confined():
            warnings.simplefilter("ignore")
            outside = [] if of_forward_alone else [f for f in used if f not in of_forward]
            found = trials.of(outside, of_forward, (*SMALL, *VARIABLES) if name in small else (*SMALL, *VARIABLES, *LARGE, *PUT_IN))
        said |= {other: e for other in asked if (e := _said(other, found)) is not None}
    return said


def _quantities(case: Case) -> dict[str, Quantity]:
    """The deterministic quantities that the subject gives."""
    f, ctx = case.ctx.f, case.ctx
    made: dict[str, Quantity] = {}
    if f.inverse is not None:
        made["inverse"] = _inverse
    if f.log_det is not None and ctx.log_det_claim[0] == "exact":
        made["log_det"] = lambda c: np.abs(c.ctx.evaluate_log_det(c.x, SEED) - c.truth.value) / (8.0 * c.truth.slack)
    elif f.log_det is not None and ctx.log_det_claim[0] == "unbiased" and ctx.d <= CHEAP:
        made["log_det"] = _expected
    if f.inverse_log_det is not None:
        made["inverse_log_det"] = _inverse_log_det
    if f.log_prob is not None and f.base_log_prob is not None:
        made["log_prob"] = _log_prob
    return made


def _expected(c: Case) -> Array:
    """The expectation of a random log-det at the first rows: refuted by real draws, else enumerated."""
    x, truth = c.x[:FEW], c.truth
    draws = c.ctx.evaluate_log_det(np.tile(x, (COPIES, *[1] * (x.ndim - 1))), SEED).reshape(COPIES, len(x))
    known = np.abs(draws.mean(0) - truth.value[:FEW]) / (8.0 * truth.slack[:FEW] + ERRORS * draws.std(0, ddof=1) / COPIES**0.5)
    if not (known <= 1.0).all():
        return np.asarray(known)
    v = Volumes(truth.jacobian.residual[:FEW], truth.value[:FEW], truth.slack[:FEW], c.ctx.u, c.ctx.subject.event_shape)
    found = expectation(c, c.ctx.evaluate_log_det, x, v)
    if found.plan is None or not (found.tolerance <= v.slack + SHARP * c.ctx.d).all():
        return np.full(len(x), np.inf)  # a mean of real draws, or of too few lengths, proves no repair
    return np.asarray(np.abs(found.value - v.t) / (8.0 * v.slack + found.tolerance))


def _inverse(c: Case) -> Array:
    f, u = c.ctx.f, c.ctx.u
    assert f.inverse is not None
    back = f.inverse(c.y, seed=SEED)
    size = np.linalg.norm(flat(c.y).astype(np.float64), axis=1)
    allowed = 4.0 * promised(c.ctx)[0] * np.maximum(1.0, size) + 16.0 * OPERATIONS * u * c.size
    return np.asarray(np.linalg.norm(flat(f.forward(back, seed=SEED)).astype(np.float64) - flat(c.y), axis=1) / allowed)


def _inverse_log_det(c: Case) -> Array:
    assert c.ctx.f.inverse_log_det is not None
    return np.abs(c.ctx.f.inverse_log_det(c.y, seed=SEED) + c.truth.value) / (64.0 * c.truth.slack)


def _log_prob(c: Case) -> Array:
    f = c.ctx.f
    assert f.log_prob is not None
    assert f.base_log_prob is not None
    base = f.base_log_prob(c.y, seed=SEED)
    slack = 8.0 * c.truth.slack + 64.0 * c.ctx.u * (np.abs(base) + np.abs(c.truth.value) + c.ctx.d + c.size**2)
    return np.abs(f.log_prob(c.x, seed=SEED) - base - c.truth.value) / slack


def _answers(ratio: Quantity, case: Case) -> bool:
    try:
        ratio(case)
    except Exception:
        return False
    return True


def _right(ratio: Quantity, case: Case) -> bool:
    return bool((ratio(case) <= 1.0).all())


TRUE_OF_F = ("inverse", "log_det")
"""If one of these is right, F is not the odd one, and is changed last."""
_OUTSIDE = (("own", SMALL), ("others", SMALL), ("own", VARIABLES), ("others", VARIABLES), ("own", LARGE), ("others", LARGE))
_INSERTED = (("own", PUT_IN), ("others", PUT_IN))
_EVEN = (*_OUTSIDE, *_INSERTED, ("forward", SMALL), ("forward", VARIABLES), ("forward", LARGE), ("forward", PUT_IN))
_ODD = (("own", SMALL), ("forward", SMALL), *_OUTSIDE[1:4], ("forward", VARIABLES), *_OUTSIDE[4:], ("forward", LARGE), *_INSERTED,
        ("forward", PUT_IN))


@dataclass
class Trials:
    """Changes that are tried to make one quantity right."""

    case: Case
    first: str
    """The quantity."""
    wrong: Mapping[str, Quantity]
    stays: Mapping[str, Quantity]
    """What is right, and has to stay so."""
    elsewhere: HostArray
    """Inputs that no search has used."""
    end: float
    """CPU time of the process at which it ends."""
    held: Held = field(init=False)
    level: bool = field(init=False)
    """Whether the log-det that is given does not depend on x, as it is written."""

    def __post_init__(self) -> None:
        self.held = held_by(self.case.ctx.subject)
        self.level = "log_det" in self.wrong and not self._random and bool(np.ptp(self.case.ctx.evaluate_log_det(self.case.x, SEED)) == 0.0)

    def of(self, outside: Sequence[FunctionType], of_forward: Sequence[FunctionType], tried: Collection[int]) -> Found:
        """Try the changes of these functions, the likeliest first, and stop where others follow than those that repair."""
        own = 1 + (bool(outside) and outside[0].__name__ == "<lambda>")
        names = _attributes(self.case.ctx.subject.module)
        of_own, of_others, of_f = (_sorted(functions, names) for functions in (outside[:own], outside[own:], of_forward))
        limits = {changes_f: self._limit(changes_f) for changes_f in (False, True)}
        found = Found([], 0, self.case.rows + len(self.elsewhere), _varies(self.case))
        for which, ranks in _ODD if not any(name in self.stays for name in TRUE_OF_F) else _EVEN:
            changes = [c for c in {"own": of_own, "others": of_others, "forward": of_f}[which] if c.rank in ranks and c.rank in tried]
            self._search(changes, limits[which == "forward"], found, changes_f=which == "forward")
            if any(r.steady for r in found.repaired):
                return Found([r for r in found.repaired if r.steady], found.tried, found.rows, found.varies)
        return found

    @property
    def _random(self) -> bool:
        return self.first == "log_det" and self.case.ctx.log_det_claim[0] != "exact"

    def _limit(self, changes_f: bool) -> float:
        start = time.process_time()
        self.wrong[self.first](self.case.at(self.case.x) if changes_f else self.case)
        return LONGER * max(time.process_time() - start, 0.25 if self._random else 0.005)

    def _search(self, changes: Iterable[Change], limit: float, found: Found, *, changes_f: bool) -> None:
        least: int | None = None
        for change in changes:
            if time.process_time() > self.end or (least is not None and change.rank > least):
                return
            if self._random and change.words in OF_A_WIDTH:
                continue
            found.tried += 1
            made = self._repaired(change, limit, changes_f=changes_f)
            if made is not None:
                found.repaired.append(made)
                least = change.rank if made.steady else least

    def _repaired(self, change: Change, limit: float, *, changes_f: bool) -> Repaired | None:
        """What the change makes right, at the case's inputs and at others; None where it spoils what is right, or mends nothing."""
        case, wrong, stays = self.case, self.wrong, self.stays
        try:
            with preserved(case.ctx.subject.module), kept(self.held), change.made(), np.errstate(all="ignore"):
                here, another = case, False
                with limited(limit):
                    if changes_f and not np.array_equal(case.ctx.f.forward(case.x, seed=SEED), case.y):
                        here, another = case.at(case.x), True
                    if not _right(wrong[self.first], here):
                        return None
                done = frozenset(name for name, ratio in wrong.items() if _right(ratio, here))
                flatter = _varies(here) < _varies(case) and not (self.level and all(name in done for name in TRUE_OF_F))
                if another and (len(done) < len(wrong) or not _regular(here) or flatter or not _recovered(here)):
                    return None
                if not all(_right(ratio, here) for ratio in stays.values()):
                    return None
                both = {name: ratio for name, ratio in (*wrong.items(), *stays.items()) if name in done or name in stays}
                with _moved(case, MOVED if not _varies(case) else 0.0), limited(LONGER * limit):
                    there = case.at(self.elsewhere)
                    if not all(_right(ratio, there) for ratio in both.values()) or (another and not _regular(there)):
                        return None
                return Repaired(change, done, another, self._steady(both, limit))
        except (Exception, StoppedError):
            return None

    def _steady(self, both: Mapping[str, Quantity], limit: float) -> bool:
        case = self.case
        far = FAR if case.ctx.subject.inputs is None else 1.0
        sizes = np.geomspace(far / 32.0, far, MANY * case.rows).reshape(-1, *[1] * (case.x.ndim - 1))
        try:
            with _moved(case, MOVED if case.ctx.subject.lipschitz is None else CLAIMED), limited(MANY * LONGER * limit):
                there, near = case.at((sizes * case.ctx.inputs(len(sizes))).astype(case.x.dtype)), case.at(case.x)
                return all(_right(ratio, c) for ratio in both.values() for c in (near, there))
        except Exception:
            return False


def _sorted(functions: Iterable[FunctionType], attributes: Collection[str]) -> list[Change]:
    return sorted((c for f in functions for c in changes_of(f, attributes)), key=lambda c: c.rank)


def _attributes(module: Any) -> list[str]:
    """Names of the parameters and buffers of a module and of those in it."""
    tensors = (*module.named_parameters(), *module.named_buffers()) if is_torch_module(module) else ()
    return list(dict.fromkeys(name.rpartition(".")[2] for name, _ in tensors))


def _recovered(case: Case) -> bool:
    """Whether the inverse of another F finds x itself: F folded at 0, say, has two preimages."""
    f, J = case.ctx.f, case.truth.jacobian.matrix
    if f.inverse is None:
        return True
    y, back = flat(case.y).astype(np.float64), flat(f.inverse(case.y, seed=SEED)).astype(np.float64)
    allowed = 4.0 * promised(case.ctx)[0] * np.maximum(1.0, np.linalg.norm(y, axis=1)) + 16.0 * OPERATIONS * case.ctx.u * case.size
    least = np.linalg.svd(J, compute_uv=False)[:, -1]
    return bool((np.linalg.norm(back - flat(case.x), axis=1) <= 4.0 * allowed / np.minimum(least, 1.0)).all())


def _varies(case: Case) -> bool:
    """Whether the log-det depends on x: what is taken of the wrong rows is right where it does not."""
    return bool(np.ptp(case.truth.value) > 8.0 * case.truth.slack.max())


def _regular(case: Case) -> bool:
    """Whether F still tells its inputs apart: a map to one point is undone by anything."""
    s = np.linalg.svd(case.truth.jacobian.matrix, compute_uv=False)
    return bool(np.isfinite(s).all() and (s[:, -1] > 1e-6 * s[:, 0]).all())


@contextmanager
def _moved(case: Case, by: float) -> Iterator[None]:
    """Parameters a little elsewhere: of a log-det that is constant in x they are the only independent inputs."""
    module = case.ctx.subject.module
    with preserved(module):
        if is_torch_module(module) and by:
            import torch

            rng = np.random.default_rng(0)
            with torch.no_grad():
                for p in module.parameters():
                    p.mul_(torch.tensor(1.0 + by * rng.standard_normal(p.shape)).to(p))
        yield


def _said(name: str, found: Found) -> Explanation | None:
    places: dict[str, str] = {}
    for r in found.repaired:
        if name in r.done:
            change = r.change
            places.setdefault(f"{change.words} in {change.place}" if r.another else change.place, f"{change.words} in {change.place}")
    if not 0 < len(places) <= SHOWN:
        return None
    words = ", or ".join(places.values())
    others = found.tried - len(found.repaired)
    return Explanation(REPAIR, WORDS[name], words, found.rows, 0.0, 0, f"With it what is wrong is right at all {found.rows} inputs tried, "
                       f"to rounding, and what is right stays so; with {others} other changes it is not.",
                       of_forward=any(r.another for r in found.repaired), varies=found.varies)
