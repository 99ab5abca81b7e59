"""One cause, one finding: hypotheses are tested on what failed, and every other failure is folded under the cause it follows from.

Nothing runs where nothing failed. Results keep their status and their evidence; what follows gets `because_of`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

from iresnet_verify.check.finding import UNEXPLAINED, Finding
from iresnet_verify.check.registry import CATALOGUE, FINITE, NOT_RANDOM, READABLE
from iresnet_verify.check.result import CheckResult
from iresnet_verify.diagnosis.areas import (
    ALSO,
    AREAS,
    BY_A_NUMBER,
    CUT_OFF,
    FOLLOWS,
    FORWARD,
    MORE,
    NARROW,
    OTHER_NETWORK,
    Area,
)
from iresnet_verify.diagnosis.behaviours import BEHAVIOURS, INDEPENDENT, OF_THE_DENSITY, OF_THE_INVERSE
from iresnet_verify.diagnosis.case import opened
from iresnet_verify.diagnosis.gradients import RAISES
from iresnet_verify.diagnosis.hypothesis import Explanation, written_by_hand
from iresnet_verify.diagnosis.log_dets import AT_ANOTHER_POINT, CONSTANT
from iresnet_verify.diagnosis.trials.gradient_repairs import WORDS, gradient_repairs
from iresnet_verify.diagnosis.trials.repairs import REPAIR, SECONDS, repairs
from iresnet_verify.running.run import Prepared
from iresnet_verify.subject.module_state import copied_arguments

LARGEST = 1024
"""Dimension above which no hypothesis is tested: each takes several Jacobians."""
WHOLE = ("log_det", "inverse", "forward_gradient", "log_det_gradient")
"""Quantities that are compared although no check that does so directly failed: a mask or a far input may show them alone."""
DERIVED = {"inverse_gradient": "inverse", "log_det_gradient": "log_det"}
"""Gradients of a quantity: where its value is wrong they are not compared with those of the right one."""
SPECIFIC = ("inverse.rows-are-independent", "inverse.keeps-precision")
"""Checks of a quantity that name one mistake even where its value is wrong for a reason that is not known."""
REPAIRED = ("inverse", "log_det", "inverse_log_det", "log_prob")
"""Quantities of which the one change that makes them right is looked for in the code."""
TWO_MAPS, KEPT, WRITES = "parity.train-and-eval", "hygiene.dtype-kept", "hygiene.input-kept"
PARAMETERS_KEPT = "hygiene.caller-tensors-kept"
OVERWRITTEN = "modified by an inplace operation"
"""What torch says of a backward pass that finds changed what the forward pass has saved."""
FIRST = (READABLE, FINITE, NOT_RANDOM, "hygiene.exact-log-det-not-random")
"""Causes that are shown before what the hypotheses explain, though they bring no other failure about: they make results undecided."""
Explained = Mapping[str, Explanation]
"""What the hypotheses found, by the name of the area."""


def failures(results: Iterable[CheckResult]) -> list[CheckResult]:
    """The undeclared failures."""
    return [r for r in results if r.status == "failed" and r.expected is None]


def explained(prepared: Prepared, results: Sequence[CheckResult], *, seed: int, budget: str) -> dict[str, Explanation]:
    """Test the hypotheses of every area in which something failed; where a call changes its argument, on copies: what is right of these
    follows from that."""
    failed = failures(results)
    ids = {r.id for r in failed}
    with copied_arguments(prepared.subject.module) if WRITES in ids else nullcontext():
        return _explained(prepared, failed, ids, seed=seed, budget=budget)


def _explained(prepared: Prepared, failed: Sequence[CheckResult], ids: set[str], *, seed: int, budget: str) -> dict[str, Explanation]:
    found: dict[str, Explanation] = {}
    wrong: set[str] = set()
    if math.prod(prepared.subject.event_shape) > LARGEST or ids & {*FIRST[:3]}:
        return found
    for area in AREAS:
        mine = [r for r in failed if r.id in area.primary or area.holds(r.id)]
        direct = [r for r in mine if r.id in area.primary] or (mine if area.name in WHOLE else [])
        if not direct or DERIVED.get(area.name) in wrong:
            continue
        if any(r.id in area.primary and r.id not in BEHAVIOURS for r in direct):
            wrong.add(area.name)
        _try(area, direct, found, prepared, seed, budget, ids)
    both = [r for r in failed if r.id in FORWARD.primary]
    told = {(e.cause.name, e.detail) for name, e in found.items() if name in ("inverse", "log_det")}
    if both and (len(told) == 2 or not {"inverse", "log_det"} <= set(found)):  # else one mistake made both wrong, and is named
        _try(FORWARD, both, found, prepared, seed, budget, ids)
    _repair_gradients(failed, found, prepared, seed, budget)
    coupled = any(id in BEHAVIOURS and BEHAVIOURS[id].brings_everything for id in ids)
    if not coupled:
        _repair(failed, found, prepared, seed, budget)
    value = found.get("log_det")
    if "inverse" in wrong and not {"inverse", FORWARD.name} & set(found) and value is not None and _is_level(value):
        del found["log_det"]  # what is wrong with F itself, as with its inverse, may have made a right constant wrong
    return found


def _is_level(value: Explanation) -> bool:
    """Whether it says that a log-det does not depend on x."""
    return value.cause == CONSTANT or (value.cause == AT_ANOTHER_POINT and value.detail == "0")


def _repair_gradients(failed: Sequence[CheckResult], found: dict[str, Explanation], prepared: Prepared, seed: int, budget: str) -> None:
    """Add what cuts a gradient off, where it is found in the code."""
    asked = {a.name: next(r for r in failed if r.id in a.primary) for a in AREAS
             if a.name in WORDS and (a.name not in found or found[a.name].cause in CUT_OFF) and any(r.id in a.primary for r in failed)}
    if not asked:
        return
    try:
        with opened(prepared, next(iter(asked.values())).mode, seed, budget, {r.id for r in failed}) as case:
            made = gradient_repairs(case, asked, SECONDS / 4.0)
    except Exception:
        return
    for name, e in made.items():
        found[name] = replace(found[name], repair=e.detail) if name in found else e


def _repair(failed: Sequence[CheckResult], found: dict[str, Explanation], prepared: Prepared, seed: int, budget: str) -> None:
    """Add the one change of the code that makes right what is not explained, and to what is explained its place."""
    asked = {a.name: next(r for r in failed if r.id in a.primary) for a in AREAS
             if a.name in REPAIRED and any(r.id in a.primary and r.id not in BEHAVIOURS for r in failed)}
    of_its_gradient = [r for r in failed if r.id in ("gradient.log-det", "gradient.log-det-input")]
    if not asked and of_its_gradient and "log_det_gradient" not in found:
        asked = {"log_det": of_its_gradient[0]}  # a random value is seen to be wrong by its gradient first
    if not asked:
        return
    try:
        with opened(prepared, next(iter(asked.values())).mode, seed, budget, {r.id for r in failed}) as case:
            seconds = SECONDS if any(name not in found for name in asked) and FORWARD.name not in found else SECONDS / 4.0
            small = {name for name in asked if name in found and not found[name].fitted and found[name].cause not in MORE}
            made = repairs(case, asked, seconds, of_forward_alone=FORWARD.name in found, small=small)
    except Exception:
        return
    if "log_det" in made and asked["log_det"] in of_its_gradient:
        made["log_det_gradient"] = made.pop("log_det")
    _add(made, found)


def _add(made: dict[str, Explanation], found: dict[str, Explanation]) -> None:
    """Put the changes found to what is explained, or in the place of it where they say more."""
    both = {"inverse", "log_det"} <= set(made) and made["inverse"].detail == made["log_det"].detail
    if FORWARD.name in found:
        if both:
            found[FORWARD.name] = replace(found[FORWARD.name], repair=made["inverse"].detail)
        return
    if both:
        found.pop("inverse", None)
        found.pop("log_det", None)
        found[FORWARD.name] = replace(made["inverse"], what="all of it")
        return
    for name in made.keys() & found.keys():
        if made[name].of_forward and made[name].varies:
            del made[name]  # where something is known of the others, another F is no simpler
        elif found[name].by_elimination:
            del found[name]
        elif found[name].cause not in BY_A_NUMBER or not found[name].fitted or written_by_hand(found[name].detail):
            found[name] = replace(found[name], repair=made.pop(name).detail)
    first: dict[str, str] = {}  # of what one change repairs the first is named
    for name, e in made.items():
        found[name] = e if first.setdefault(e.detail, name) == name else replace(e, cause=FOLLOWS)


def _try(
    area: Area, direct: Sequence[CheckResult], found: dict[str, Explanation], prepared: Prepared, seed: int, budget: str, ids: set[str]
) -> None:
    """Add the explanation of one area to those found, if there is one; a hypothesis that raises explains nothing."""
    try:
        with opened(prepared, direct[0].mode, seed, budget, ids) as case:
            explanation = area.explain(case, direct)
    except Exception:
        return
    if explanation is not None:
        found[area.name] = explanation


def attribute(results: Iterable[CheckResult], explanations: Explained) -> tuple[tuple[CheckResult, ...], tuple[Finding, ...]]:
    """Return the results with `because_of`, and the findings, the first cause first."""
    given = tuple(results)
    by_id = {r.id: r for r in failures(given)}
    left = dict(by_id)
    findings: list[tuple[float, Finding]] = []

    def take(rank: float, head: str, cause: str, words: tuple[str, str, str], follows: Iterable[str]) -> None:
        below = [id for id in follows if id in left and id != head]
        below += [r.id for r in given if r.because_of == head and r.id not in below]
        findings.append((rank, Finding(cause, *words, head, tuple(below))))
        for id in (head, *below):
            left.pop(id, None)

    order = list(BEHAVIOURS)
    if TWO_MAPS in left:  # what is wrong in one of the modes alone is what distinguishes them
        alone = [id for id in left if id != TWO_MAPS and _in_one_mode(by_id[id])
                 and not (id in BEHAVIOURS and BEHAVIOURS[id].brings_everything)]
        own = {name for name, e in explanations.items() if e.cause not in OTHER_NETWORK and e.cause is not REPAIR}
        unexplained = [id for id in alone if any(a.holds(id) for a in AREAS) and not any(a.name in own and a.holds(id) for a in AREAS)]
        if any("modes" in by_id[id].evidence for id in unexplained):
            behaviour = BEHAVIOURS[TWO_MAPS]
            take(90.0, TWO_MAPS, TWO_MAPS, _words(by_id[TWO_MAPS], behaviour.wrong, behaviour.change),
                 [*unexplained, *(c for c in left if behaviour.follows(c))])
    made = {name for name, e in explanations.items() if e.cause == FOLLOWS}
    follows = {"inverse": OF_THE_INVERSE if "inverse_log_det" in made else (),
               "log_det": OF_THE_DENSITY if "log_prob" in made else ()}
    coupled = any(BEHAVIOURS[id].brings_everything or id in FIRST[:3] for id in left if id in BEHAVIOURS)
    for rank, area in enumerate((FORWARD, *AREAS)):
        explanation = explanations.get(area.name)
        head = next((c for c in area.primary if c in left), next((c for c in left if area.holds(c)), None))
        if explanation is None or head is None or (explanation.by_elimination and coupled):
            continue
        if _follows(explanation, area, left):
            continue
        also = (*ALSO.get(explanation.cause, ()), *follows.get(area.name, ()))
        words = explanation.wrong, explanation.sure, explanation.change
        take(100.0 + rank, head, explanation.cause.name, words, [c for c in left if area.holds(c) or c in also])
    for rank, id in enumerate(order):
        behaviour = BEHAVIOURS[id]
        if id not in left or (_in_open_area(id, left) and not behaviour.brings_everything):
            continue
        take(_rank(rank, id), id, id, _words(by_id[id], behaviour.wrong, behaviour.change), [c for c in left if behaviour.follows(c)])
    for rank, area in enumerate(AREAS):
        head = next((c for c in area.primary if c in left), None)
        if head is not None:
            also = follows.get(area.name, ())
            take(150.0 + rank, head, UNEXPLAINED, _unexplained(by_id[head], area), [c for c in left if area.holds(c) or c in also])
    for rank, id in enumerate(order):
        if id in left:
            behaviour = BEHAVIOURS[id]
            take(_rank(rank, id), id, id, _words(by_id[id], behaviour.wrong, behaviour.change), [c for c in left if behaviour.follows(c)])
    for id in list(left):
        take(400.0, id, UNEXPLAINED, _words(by_id[id], f"{id} fails.", ""), [])
    ordered = [f for _, f in sorted(findings, key=lambda pair: pair[0])]
    cause = {id: f.check for f in ordered for id in f.follows}
    return tuple(replace(r, because_of=cause[r.id]) if r.id in cause and r.because_of is None else r for r in given), tuple(ordered)


def _follows(explanation: Explanation, area: Area, left: Mapping[str, CheckResult]) -> bool:
    """Whether it is no cause of its own: made of what is wrong, of a dtype or parameters not kept, or raised by an overwritten argument."""
    cause = explanation.cause
    overwritten = cause == RAISES and OVERWRITTEN in explanation.detail
    return cause == FOLLOWS or (cause in NARROW and KEPT in left) or (overwritten and WRITES in left) \
        or (area.name.endswith("_gradient") and PARAMETERS_KEPT in left)


def _in_one_mode(result: CheckResult) -> bool:
    """Whether a check failed in one mode and passed in the other, or looks at one mode only."""
    modes = str(result.evidence.get("modes", ""))
    return ("failed" in modes and "passed" in modes) or (result.id in CATALOGUE and not CATALOGUE[result.id].modes)


def _rank(rank: int, id: str) -> float:
    if id in INDEPENDENT:
        return 2.5  # after FIRST[:3]
    return float(rank) if BEHAVIOURS[id].brings_everything or id in FIRST else 200.0 + rank


def _in_open_area(id: str, left: Mapping[str, CheckResult]) -> bool:
    """Whether a quantity is wrong and unexplained of which this check sees less than another that failed."""
    return id not in SPECIFIC and any(area.holds(id) and any(c in left for c in area.primary if c not in BEHAVIOURS) for area in AREAS)


def _words(result: CheckResult, wrong: str, change: str) -> tuple[str, str, str]:
    mode = f" in {result.mode} mode" if result.mode else ""
    return wrong, f"{result.id} found{mode}: {result.message.rstrip('.')}.", change


def _unexplained(result: CheckResult, area: Area) -> tuple[str, str, str]:
    return (f"{area.what} is wrong, and no known mistake explains its numbers.", _words(result, "", "")[1], "")


def diagnose(
    prepared: Prepared, results: Sequence[CheckResult], *, seed: int, budget: str
) -> tuple[tuple[CheckResult, ...], tuple[Finding, ...]]:
    """Test the hypotheses on the subject, and attribute every failure to a cause."""
    return attribute(results, explained(prepared, results, seed=seed, budget=budget) if failures(results) else {})
