"""Run the catalogue on a subject, in this process: every check in every mode, each from the same state and seeds.

The unit is `run_check`: one check in all its modes, parameters, buffers, flags, modes, gradients and global
generators put back bit for bit afterwards. An exception becomes an `error` result that names it and its place.
Nothing is isolated here: a subject that hangs hangs the audit; the command line runs the same unit in worker processes.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from typing import Any

from iresnet_verify.check.budget import BUDGETS, Budget
from iresnet_verify.check.context import Context
from iresnet_verify.check.outcome import REFUSED, Outcome
from iresnet_verify.check.registry import FINITE, NOT_RANDOM, READABLE, Check
from iresnet_verify.check.result import CheckResult
from iresnet_verify.running.plan import Planned, plan, require_known, subject_modes
from iresnet_verify.subject.conventions import Conventions, read_conventions
from iresnet_verify.subject.errors import Refused, Undecided, raised_at
from iresnet_verify.subject.frameworks import Framework, framework_of
from iresnet_verify.subject.module_state import preserved, set_mode
from iresnet_verify.subject.seeds import derived_seed
from iresnet_verify.subject.subject import Subject
from iresnet_verify.subject.validation import validate

SEVERITY = ("skipped", "passed", REFUSED, "inconclusive", "error", "failed")
"""Of the modes of a check, the one with the last of these decides: what is refused in one mode is no pass, whatever held in the other."""

SEE_READABLE = f" [see {READABLE}]"


@dataclass
class Prepared:
    """A validated subject, its framework, and its conventions in each mode (determined once, on first use)."""

    subject: Subject
    seed: int = 0
    framework: Framework = field(init=False)
    conventions_by_mode: dict[str | None, Conventions] = field(default_factory=dict)
    shared: dict[Any, Any] = field(default_factory=dict)
    """See `Context.shared`."""

    def __post_init__(self) -> None:
        validate(self.subject)
        self.framework = framework_of(self.subject)

    def conventions(self, mode: str | None) -> Conventions:
        """Return the conventions in one mode; the module is in that mode already."""
        if mode not in self.conventions_by_mode:
            self.conventions_by_mode[mode] = read_conventions(self.subject, self.framework, derived_seed(self.seed, "conventions", mode))
        return self.conventions_by_mode[mode]


def plan_audit(
    prepared: Prepared, budget: str, alpha: float, *,
    select: Iterable[str] | None = None, ignore: Iterable[str] | None = None,
) -> list[Planned]:
    """Validate the arguments of an audit and return its plan."""
    if budget not in BUDGETS:
        raise ValueError(f"budget: expected one of {sorted(BUDGETS)}, got {budget!r}; try budget='standard'")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: expected a probability in (0, 1), got {alpha!r}; try alpha=1e-6")
    require_known(prepared.subject.expected_failures, "expected_failures")
    return plan(prepared.subject, alpha, select=select, ignore=ignore)


def run_check(
    subject: Subject | Prepared, item: Planned | Check, *, seed: int = 0, budget: str | Budget = "standard",
    alpha: float = 1e-6,
) -> CheckResult:
    """Run one check in all its modes; the worst decides. `alpha` is used where `item` is a bare `Check`."""
    prepared = subject if isinstance(subject, Prepared) else Prepared(subject, seed)
    subject = prepared.subject
    if isinstance(item, Check):
        modes = subject_modes(subject)
        item = Planned(item, modes if item.modes else modes[-1:], alpha / len(modes) if item.statistical else 0.0)
    limits = BUDGETS[budget] if isinstance(budget, str) else budget
    started, worked = time.perf_counter(), time.process_time()
    outcomes = [(mode, _run_mode(prepared, item, mode, seed, limits)) for mode in item.modes]
    mode, worst = max(reversed(outcomes), key=lambda pair: SEVERITY.index(_severity(pair[1])))
    evidence, message = dict(worst.evidence), worst.message
    if len(outcomes) > 1 and len({o.status for _, o in outcomes}) > 1:
        evidence["modes"] = ", ".join(f"{m}: {o.status}" for m, o in outcomes)
    refused = {m: str(o.evidence[REFUSED]) for m, o in outcomes if REFUSED in o.evidence}
    if refused:
        everywhere = len(refused) == len(outcomes) and len({*refused.values()}) == 1
        evidence[REFUSED] = worst.evidence[REFUSED] if everywhere else "; ".join(f"{m}: {why}" for m, why in refused.items())
    if _severity(worst) == REFUSED:
        message += "".join(f"; {m} mode: {o.message}" for m, o in outcomes if o.status == "passed")
    check = item.check
    return CheckResult(
        id=check.id, family=check.family, status=worst.status, claim=check.claim, reference=check.reference,
        kind=check.kind, message=message, evidence=evidence, tolerance=worst.tolerance, oracle=worst.oracle,
        expected=subject.expected_failures.get(check.id), seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - worked, mode=mode,
        curves=worst.curves, counterexample=worst.counterexample, because_of=worst.because_of,
    )


def _severity(outcome: Outcome) -> str:
    return REFUSED if outcome.status == "skipped" and REFUSED in outcome.evidence else outcome.status


def _run_mode(
    prepared: Prepared, item: Planned, mode: str | None, seed: int, budget: Budget
) -> Outcome:
    """One check in one mode, with everything put back."""
    check = item.check
    subject, framework = prepared.subject, prepared.framework
    before = framework.snapshot_globals()
    printed = io.StringIO()
    try:
        with preserved(subject.module), redirect_stdout(printed), redirect_stderr(printed):
            set_mode(subject.module, mode)
            conventions = prepared.conventions(mode)
            context = Context(subject, check.id, mode, seed, budget, item.alpha, framework, conventions, prepared.shared)
            reason = skip_reason(context, check)
            if reason is not None:
                return Outcome("skipped", reason, because_of=READABLE if reason.endswith(SEE_READABLE) else None)
            reason, cause = undecidable(context, check)
            if cause is not None:
                return Outcome("inconclusive", f"{reason} [see {cause}]", because_of=cause)
            framework.restore_globals(before)  # the conventions came from calls: the check starts from the caller's settings
            framework.seed(derived_seed(seed, check.id, mode) % 2**31)
            outcome = check.run(context)
    except Undecided as undecided:
        outcome = Outcome("inconclusive", str(undecided))
    except Refused as refused:
        outcome = Outcome("skipped", f"refused: {refused}", {REFUSED: str(refused), "compared": 0})
    except (Exception, SystemExit) as error:
        text = str(error).strip().split("\n")[0][:300]
        outcome = Outcome("error", f"{type(error).__name__}: {text}{raised_at(error)}", {"exception": type(error).__name__})
    finally:
        framework.restore_globals(before)
    characters = len(printed.getvalue())
    if characters:
        outcome = replace(outcome, evidence={**outcome.evidence, "printed_characters": characters})
    return outcome


def skip_reason(context: Context, check: Check) -> str | None:
    """Return why a check cannot run on this subject, or None."""
    if check.id == READABLE:
        return None
    broken = context.conventions.broken
    for name in ("forward", *check.needs):
        if name in broken:
            return f"{broken[name]}{SEE_READABLE}"
    return next((reason for reason in (_missing(context, name) for name in check.needs) if reason is not None), None)


def undecidable(context: Context, check: Check) -> tuple[str, str | None]:
    """Return why the check's claim about F cannot be decided in this mode, and the check that reports it; ("", None) where it can."""
    mode = f" in {context.mode} mode" if context.mode else ""
    if check.id in (READABLE, NOT_RANDOM, FINITE):
        return "", None
    if context.conventions.infinite_forward:
        return f"F is not finite at the subject's own inputs{mode}", FINITE
    if context.conventions.random_forward and check.compares_values:
        return f"F itself is random{mode}", NOT_RANDOM
    return "", None


def _missing(context: Context, need: str) -> str | None:
    """Why the subject cannot give what a check needs, or None."""
    subject, framework = context.subject, context.framework
    jax = framework.name.startswith("jax")
    if need in ("torch", "autodiff", "autograd", "parameters"):
        if not framework.differentiable and not (jax and need != "torch"):
            return f"needs autograd; framework {framework.name} has none here"
        if jax and need == "parameters" and (subject.from_parameters is None or subject.parameters is None):
            return "needs from_parameters and parameters; the subject does not give both"
        absent = not jax and need in ("autograd", "parameters") and subject.module is None
        return "needs module; the subject gives none" if absent else None
    given = getattr(context.f if need in ("log_det", "inverse_log_det") else subject, need)
    return f"needs {need}; the subject gives none" if given in (None, (), {}) else None
