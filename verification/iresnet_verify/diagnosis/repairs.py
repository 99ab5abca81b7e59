"""The one change of the subject's code that makes wrong numbers right, found by trying (program repair by search: Weimer et al. 2009).

A change of a function (`code_changes`) is a repair where, with it made, the inverse answers F's images, the log-dets are log|det| of F,
and the density is made of both, at independent inputs and to rounding, as far as the subject gives them. No number is fitted. Code that
forward does not run is tried first: what is changed there makes no other map of F.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np

from iresnet_verify.catalogue.shared.map_errors import promised
from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import Array, Cause, Explanation
from iresnet_verify.diagnosis.trials.code_changes import Change, changes_of, functions_of
from iresnet_verify.diagnosis.trials.confinement import (
    StoppedError,
    arrays_kept,
    arrays_of,
    can_be_stopped,
    confined,
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
SHOWN = 2
"""Places that are shown."""
MANY = 4
"""If so many places repair it, or so many other maps F, they say nothing."""

REPAIR = Cause("one-change", "{what} is right with one change of the code: {detail}.", "Look at this line first.")
SMALL = 1
"""Up to this rank a change outside forward is not weighed against changes of forward."""
DERIVED = {"inverse_log_det": ("inverse", "log_det"), "log_prob": ("log_det",)}
"""What is made of others says nothing where these are wrong for a reason that is not known."""
WORDS = {"inverse": "The inverse", "log_det": "log_det", "inverse_log_det": "The log-det of the inverse", "log_prob": "log_prob"}

Quantity = Callable[[Case], Array]
"""|error|/allowed of each row."""


@dataclass
class Found:
    """What a search found: of one place one change is shown, but each change of F is another F."""

    repaired: list[tuple[Change, frozenset[str], bool]]
    """(change, what it repairs, whether F is another map with it)."""
    tried: int
    rows: int


def repairs(case: Case, asked: Collection[str], seconds: float = SECONDS) -> dict[str, Explanation]:
    """{quantity: explanation} of those asked for that one change makes right, while what is right stays so."""
    end = time.process_time() + seconds
    if not can_be_stopped():
        return {}
    given = _quantities(case)
    right = {name: _right(ratio, case) for name, ratio in given.items()}
    wrong = {name: ratio for name, ratio in given.items() if not right[name]}
    kept = {name: ratio for name, ratio in given.items() if right[name]}
    if not wrong or np.abs(case.truth.value).max() <= 1e6 * case.ctx.u:  # a log-det of 0 is made of anything
        return {}
    of_forward = functions_of(lambda: case.ctx.f.forward(case.x, seed=SEED))
    far = ends(case)[0] if case.ctx.d <= CHEAP else None  # where the log-det is largest and smallest
    elsewhere = np.concatenate([1.5 * case.ctx.inputs(case.rows), *([] if far is None else [far.x])]).astype(case.x.dtype)
    said: dict[str, Explanation] = {}
    for name, ratio in wrong.items():
        if name not in asked or name in said or any(o not in said and (o in asked or o in wrong) for o in DERIVED.get(name, ())):
            continue
        used = functions_of(lambda ratio=ratio: ratio(case))  # type: ignore[misc]
        with warnings.catch_warnings(), confined():
            warnings.simplefilter("ignore")
            found = _places(case, name, used, of_forward, wrong, kept, elsewhere, end)
        said |= {other: e for other in asked if (e := _said(other, found)) is not None}
    return said


def _places(case: Case, name: str, used: list[FunctionType], of_forward: list[FunctionType], wrong: Mapping[str, Quantity],
            kept: Mapping[str, Quantity], elsewhere: HostArray, end: float) -> Found:
    """What repairs one quantity: changes outside forward, and where there is none, or a large one, of forward too."""
    found = _search(case, name, [f for f in used if f not in of_forward], wrong, kept, elsewhere, end, changes_f=False)
    if found.repaired and found.repaired[0][0].rank <= SMALL:
        return found
    more = _search(case, name, of_forward, wrong, kept, elsewhere, end, changes_f=True)
    return Found([*found.repaired, *more.repaired], found.tried + more.tried, found.rows)


def _quantities(case: Case) -> dict[str, Quantity]:
    """The deterministic quantities that the subject gives."""
    f, ctx = case.ctx.f, case.ctx
    made: dict[str, Quantity] = {}
    if f.inverse is not None:
        made["inverse"] = _inverse
    if f.log_det is not None and ctx.log_det_claim[0] == "exact":
        made["log_det"] = lambda c: np.abs(c.ctx.evaluate_log_det(c.x, SEED) - c.truth.value) / (8.0 * c.truth.slack)
    if f.inverse_log_det is not None:
        made["inverse_log_det"] = _inverse_log_det
    if f.log_prob is not None and f.base_log_prob is not None:
        made["log_prob"] = _log_prob
    return made


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


def _right(ratio: Quantity, case: Case) -> bool:
    return bool((ratio(case) <= 1.0).all())


def _search(case: Case, first: str, functions: Iterable[FunctionType], wrong: Mapping[str, Quantity], kept: Mapping[str, Quantity],
            elsewhere: HostArray, end: float, *, changes_f: bool) -> Found:
    """Try the changes of these functions, the smallest first, and stop when larger ones follow than those that repair."""
    found, start = Found([], 0, case.rows + len(elsewhere)), time.process_time()
    wrong[first](case.at(case.x) if changes_f else case)
    limit = LONGER * max(time.process_time() - start, 0.005)
    arrays = arrays_of(case.ctx.subject)
    for change in sorted((c for f in functions for c in changes_of(f)), key=lambda c: c.rank):
        if time.process_time() > end or (found.repaired and change.rank > found.repaired[0][0].rank):
            break
        found.tried += 1
        done, another = _repaired(case, first, change, wrong, kept, elsewhere, arrays, limit, changes_f=changes_f)
        if done:
            found.repaired.append((change, done, another))
    return found


def _repaired(case: Case, first: str, change: Change, wrong: Mapping[str, Quantity], kept: Mapping[str, Quantity],
              elsewhere: HostArray, arrays: list[Any], limit: float, *, changes_f: bool) -> tuple[frozenset[str], bool]:
    """The wrong quantities that the change makes right, at the case's inputs and at others; none where it spoils one that is kept."""
    nothing: frozenset[str] = frozenset()
    try:
        with preserved(case.ctx.subject.module), arrays_kept(arrays), change.made(), np.errstate(all="ignore"):
            here, another = case, False
            with limited(limit):
                if changes_f and not np.array_equal(case.ctx.f.forward(case.x, seed=SEED), case.y):
                    here, another = case.at(case.x), True
                if not _right(wrong[first], here):
                    return nothing, another
            done = frozenset(name for name, ratio in wrong.items() if _right(ratio, here))
            if another and (len(done) < len(wrong) or not _regular(here) or _varies(here) < _varies(case)):
                return nothing, another
            if not all(_right(ratio, here) for ratio in kept.values()):
                return nothing, another
            with _moved(case), limited(LONGER * limit):
                there = case.at(elsewhere)
                still = all(_right(ratio, there) for name, ratio in (*wrong.items(), *kept.items()) if name in done or name in kept)
                return (done if still and (not another or _regular(there)) else nothing), another
    except (Exception, StoppedError):
        return nothing, False


def _varies(case: Case) -> bool:
    """Whether the log-det depends on x: what is taken of the wrong rows is right where it does not."""
    return bool(np.ptp(case.truth.value) > 8.0 * case.truth.slack.max())


def _regular(case: Case) -> bool:
    """Whether F still tells its inputs apart: a map to one point is undone by anything."""
    s = np.linalg.svd(case.truth.jacobian.matrix, compute_uv=False)
    return bool(np.isfinite(s).all() and (s[:, -1] > 1e-6 * s[:, 0]).all())


@contextmanager
def _moved(case: Case) -> Iterator[None]:
    """Parameters a little elsewhere: of a log-det that is constant in x they are the only independent inputs."""
    module = case.ctx.subject.module
    if is_torch_module(module) and not _varies(case):
        import torch

        rng = np.random.default_rng(0)
        with torch.no_grad():
            for p in module.parameters():
                p.mul_(torch.tensor(1.0 + 0.1 * rng.standard_normal(p.shape)).to(p))
    yield


def _said(name: str, found: Found) -> Explanation | None:
    places: dict[str, str] = {}
    for change, done, another in found.repaired:
        if name in done:
            places.setdefault(f"{change.words} in {change.place}" if another else change.place, f"{change.words} in {change.place}")
    if not 0 < len(places) < MANY:
        return None
    words = ", or ".join(list(places.values())[:SHOWN])
    others = found.tried - len(found.repaired)
    return Explanation(REPAIR, WORDS[name], words, found.rows, 0.0, 0, f"With it what is wrong is right at all {found.rows} inputs tried, "
                       f"to rounding, and what is right stays so; with {others} other changes it is not.")
