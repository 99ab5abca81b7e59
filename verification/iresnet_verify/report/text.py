"""Words and numbers for people: the status of a report as a sentence, values as a reader expects them.

Nothing is decided here: the status is `AuditResult.status`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.finding import Finding
from iresnet_verify.check.outcome import REFUSED
from iresnet_verify.check.registry import READABLE
from iresnet_verify.check.result import CheckResult

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LONGEST = 600
"""Characters of one value that are shown; evidence is meant to be short, but nothing enforces it."""


class State(NamedTuple):
    """How one result is shown: its status, refined by what was declared."""

    key: str
    label: str
    glyph: str
    meaning: str
    open: bool


STATES = (
    State("failed", "failed", "✕", "The claim is refuted beyond its tolerance.", True),
    State("unexpected", "unexpected pass", "!", "Declared to fail, but it passed: the declaration is out of date.", True),
    State("error", "error", "⚠", "The check could not be carried out.", True),
    State("inconclusive", "inconclusive", "?", "Neither refuted nor established within the budget.", False),
    State("declared", "declared failure", "◆", "Failed, as declared beforehand with a reason.", False),
    State("skipped", "skipped", "–", "Not applicable, or something it needs was not supplied.", False),
    State("passed", "passed", "✓", "Holds, in the sense of the check's kind.", False),
)
"""Most urgent first; also the order of the page."""

BY_KEY = {s.key: s for s in STATES}

KINDS = {
    "proof": "A pass is a proof: an exact identity, an enumeration or ball arithmetic, up to the stated tolerance.",
    "equivalence": "A pass is a positive statement: the deviation is at most the stated ε, at the stated error rate.",
    "search": "A pass says “not refuted” by this much search for a counterexample, and never more.",
}


class Support(NamedTuple):
    """On what a pass rests."""

    key: str
    word: str
    meaning: str


PROVED = Support("proved", "proved", "By a certificate for all inputs; or an identity, an enumeration, ball arithmetic at those compared.")
BOUNDED = Support("bounded", "bounded", "The deviation is at most the stated ε, at the stated error rate.")
SEARCHED = Support("searched", "searched", "No counterexample was found by this much search.")
SUPPORTS = (PROVED, BOUNDED, SEARCHED)
"""The strongest first."""


def support_of(result: CheckResult) -> Support | None:
    """On what a pass rests; None where the check did not pass."""
    if state(result).key != "passed":
        return None
    if result.kind == "search":
        return SEARCHED
    sampled = result.kind == "equivalence" or any(key.startswith("alpha") for key in result.evidence)
    return BOUNDED if sampled else PROVED


def certificates(report: AuditResult) -> dict[str, str]:
    """What is proved for all inputs, by check."""
    return {c.id: str(c.evidence["proved"]) for c in report.checks if support_of(c) is PROVED and "proved" in c.evidence}


def established(report: AuditResult) -> list[tuple[Support, str]]:
    """What is proved, what is bounded at which error rate, what was only searched: a few words each."""
    n = {g: sum(support_of(c) is g for c in report.checks) for g in SUPPORTS}
    proved = sorted(certificates(report).values(), key=lambda statement: not statement.startswith("Lip"))
    here = n[PROVED] - len(proved)
    proved += [f"{here} {'identity' if here == 1 else 'identities'}"] if here else []
    return [
        (PROVED, ", ".join(proved) or "nothing"),
        (BOUNDED, f"{plural(n[BOUNDED], 'check')} at error rate {report.alpha:.0e}" if n[BOUNDED] else "nothing"),
        (SEARCHED, plural(n[SEARCHED], "check") if n[SEARCHED] else "nothing"),
    ]


def state(result: CheckResult) -> State:
    """The state a result is shown in: a declared failure is its own state, and so is a declared failure that passed."""
    if result.expected is not None and result.status == "failed":
        return BY_KEY["declared"]
    if result.unexpected and result.status == "passed":
        return BY_KEY["unexpected"]
    return BY_KEY[result.status]


def overall(report: AuditResult) -> State:
    """The state a whole report is shown in: one that passes only because its failures were declared is marked so."""
    if report.status == "passed" and any(state(c).key == "declared" for c in report.checks):
        return BY_KEY["declared"]._replace(label="fails as declared")
    return BY_KEY[report.status]


def count(results: Sequence[CheckResult]) -> dict[str, int]:
    """Results per state, every state named, most urgent first."""
    found = [state(r).key for r in results]
    return {s.key: found.count(s.key) for s in STATES}


def plural(n: int, noun: str) -> str:
    """`1 check`, `2 checks`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def verdict(report: AuditResult) -> str:
    """The status in one or two sentences, with what was not decided."""
    if unreadable(report) is not None:
        return "Nothing was audited: forward cannot be read."
    n = count(report.checks)
    ran = sum(c.status in ("passed", "failed") for c in report.checks)
    status = report.status
    if status == "failed":
        parts = []
        if n["failed"]:
            parts.append(f"{n['failed']} of the {plural(ran, 'check')} that came to a result failed.")
        if n["unexpected"]:
            parts.append(f"{plural(n['unexpected'], 'declared failure')} passed: remove the declaration.")
    elif status == "error":
        parts = [f"Nothing failed unexpectedly, but {plural(n['error'], 'check')} could not be carried out."]
    elif status == "inconclusive":
        parts = ["Nothing failed unexpectedly, but the audit is not conclusive."]
    elif n["declared"]:
        parts = [f"As declared: {plural(n['passed'], 'check')} passed and {n['declared']} failed as declared."]
    else:
        parts = [f"All {plural(ran, 'check')} that came to a result passed."]
    parts += _undecided(report)
    rest = [f"{n[k]} {k}" for k in ("error", "inconclusive", "skipped") if n[k] and not (k == "error" == status)]
    if n["declared"] and status != "passed":
        rest.append(plural(n["declared"], "declared failure"))
    if rest:
        parts.append(f"Also {', '.join(rest)}.")
    return " ".join(parts)


def unreadable(report: AuditResult) -> CheckResult | None:
    """The one result that matters where forward answers in no mode: every other check was skipped because of it."""
    found = next((c for c in report.checks if c.id == READABLE and c.status == "error"), None)
    if found is None or found.evidence.get("modes") or "forward" not in str(found.evidence.get("unreadable", "")):
        return None
    return found if all(c is found or c.status == "skipped" for c in report.checks) else None


def findings(report: AuditResult) -> list[Finding]:
    """The findings whose check still counts: a baseline may have declared it since."""
    open_now = {c.id for c in report.checks if c.status == "failed" and c.expected is None}
    return [f for f in report.findings if f.check in open_now]


def modes(report: AuditResult, finding: Finding) -> str:
    """How the modes differ, where they do: "train: failed, eval: passed"."""
    found = next((c.evidence.get("modes") for c in report.checks if c.id == finding.check), None)
    return str(found or "")


def consequences(finding: Finding) -> str:
    """What follows from a finding, in a few words."""
    n = len(finding.follows)
    return f"hence {'this' if n == 1 else f'these {n}'}: {', '.join(finding.follows)}" if n else ""


def refusals(report: AuditResult) -> list[tuple[str, str]]:
    """What the subject refused, so that nothing is said of it there: (check, what and why)."""
    return [(c.id, str(c.evidence[REFUSED])) for c in report.checks if REFUSED in c.evidence]


def _undecided(report: AuditResult) -> list[str]:
    """What `AuditResult.status` needs before it is *passed*."""
    if report.status not in ("inconclusive", "error"):
        return []
    missing = report.missing_families
    parts = []
    if "inverse" in missing:
        parts.append("No check of the inverse compared anything.")
    if "logdet" in missing:
        parts.append("A log-determinant was given, but no check of it compared anything.")
    return parts


def power(exponent: int) -> str:
    """10 to an integer power, in superscripts."""
    return f"10{str(exponent).translate(SUPERSCRIPT)}"


def number(value: float, digits: int = 4) -> str:
    """A number with `digits` significant digits; scientific as 1.2×10⁻⁷, and NaN and infinities by name."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return _whole(int(value))
    value = float(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    mantissa = mantissa.replace("-", "−")
    if not exponent:
        return mantissa
    return power(int(exponent)) if mantissa == "1" else f"{mantissa}×{power(int(exponent))}"


def _whole(value: int) -> str:
    if value.bit_length() > 256:  # Python refuses to print very long integers
        return f"{'−' if value < 0 else ''}about 2{str(value.bit_length()).translate(SUPERSCRIPT)}"
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", "−")


def value_text(value: Any) -> str:
    """Any piece of evidence, on one line and of bounded length."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if value is None:
        text = "—"
    elif isinstance(value, Real):
        text = number(value)  # type: ignore[arg-type]  # numbers.Real has __float__, which is all that is used
    elif isinstance(value, str):
        text = value
    elif isinstance(value, Mapping):
        text = ", ".join(f"{k}: {value_text(v)}" for k, v in value.items())
    elif isinstance(value, Sequence):
        text = ", ".join(value_text(v) for v in value[:12]) + (f", … ({len(value)} in all)" if len(value) > 12 else "")
        text = (f"({text},)" if len(value) == 1 else f"({text})") if isinstance(value, tuple) else text
    else:
        text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"


def seconds_text(seconds: float) -> str:
    """A duration: `3 ms`, `1.2 s`, `2 min 5 s`."""
    if not math.isfinite(seconds) or seconds < 0:
        return "—"
    if seconds < 0.9995:
        return "< 1 ms" if seconds < 1e-3 else f"{seconds * 1e3:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    return f"{round(seconds) // 60} min {round(seconds) % 60} s"


_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def legal(text: object) -> str:
    r"""The text with every character that XML 1.0 forbids written as its escape, e.g. `\x1b`."""
    return _ILLEGAL.sub(lambda m: m.group().encode("unicode_escape", "surrogatepass").decode(), str(text))


def details(result: CheckResult) -> str:
    """Claim, evidence, tolerance, oracle and reproduction, a line each."""
    lines = [f"follows from: {result.because_of}"] if result.because_of else []
    lines += [result.message, f"claim: {result.claim}", f"reference: {result.reference}"]
    lines += [f"{k}: {v}" for k, v in result.evidence.items()]
    for label in ("tolerance", "oracle", "mode", "reproduce"):
        value = getattr(result, label)
        if value:
            lines.append(f"{label}: {value}")
    return "\n".join(lines)
