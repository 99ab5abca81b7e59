"""The catalogue as a page of Markdown: `iresnet-verify checks --write docs/checks.md`."""

from __future__ import annotations

from collections.abc import Sequence

from iresnet_verify.check.registry import FAMILIES, Check
from iresnet_verify.report.text import KINDS

HEAD = """# The checks

{count} checks in {families} families. This page is written by `make tables`; a test compares them.

Each check states a claim with its equation, decides it against an oracle that is not the audited code, and allows what rounding
explains: every result holds the tolerance with its derivation, the oracle that was used and the evidence. *Needs* names the fields
of `Subject` without which a check is skipped (`torch`: its autograd). Checks marked α are statistical; they share the error rate of
the audit. All run in training and in evaluation mode, but those marked *one mode*.

{kinds}
"""


def markdown(checks: Sequence[Check]) -> str:
    """Return the page."""
    present = [f for f in FAMILIES if any(c.family == f for c in checks)]
    kinds = "\n".join(f"- **{name}**: {meaning}" for name, meaning in KINDS.items())
    parts = [HEAD.format(count=len(checks), families=len(present), kinds=kinds)]
    for family in present:
        mine = [c for c in checks if c.family == family]
        parts.append(f"## {family} ({len(mine)})\n")
        parts += [_entry(c) for c in mine]
    return "\n".join(parts)


def _entry(check: Check) -> str:
    marks = [check.kind, *(["α"] if check.statistical else []), *([] if check.modes else ["one mode"])]
    how = " ".join((check.run.__doc__ or "").split())
    rows = {"How": how, "Catches": check.catches, "Costs": check.cost, "Needs": ", ".join(check.needs), "Reference": check.reference}
    listed = "\n".join(f"- *{name}*: {text}" for name, text in rows.items() if text)
    return f"### {check.id}\n\n{check.claim} ({', '.join(marks)})\n\n{listed}\n"
