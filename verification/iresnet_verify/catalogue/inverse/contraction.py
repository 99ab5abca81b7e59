"""A proof that F = id + g is a bijection, where it can be read: Lip(g) < 1, or F strongly monotone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from iresnet_ref.rounding import down, up
from iresnet_verify.catalogue.shared.readable_branch import HOW, read_forward, read_residual, rounded_up
from iresnet_verify.check.outcome import Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.subject.errors import Refused

if TYPE_CHECKING:
    from iresnet_verify.catalogue.shared.readable_branch import ReadBranch
    from iresnet_verify.check.context import Context


@check(
    "inverse.contraction-proved",
    claim="F is proved to be a bijection of ℝᵈ with a Lipschitz inverse: Lip(F − id) < 1, or ⟨ΔF, Δx⟩ ≥ (1 − m)‖Δx‖² with m < 1.",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), Theorem 1; Minty 1962; docs/proofs.md of iresnet-ref", kind="proof", modes=False,
    cost="that of lipschitz.proved; four such searches more where Lip(g) < 1 is not proved",
    catches="nothing by itself: it proves, or says what is proved instead",
)
def contraction_proved(ctx: Context) -> Outcome:
    """F is read operation by operation, and its input subtracted; where F cannot be read, g is, and F = x + g(x) is what is assumed.

    Asked of subjects that give `residual` or claim `lipschitz`: others need not be a residual block.
    """
    if ctx.subject.residual is None and ctx.subject.lipschitz is None:
        return Outcome("skipped", "needs residual or lipschitz; the subject gives none")
    read, assumed = _read(ctx)
    branch = read.branch
    if ctx.budget.name != "quick" or not branch.certificate.bound < 1.0:
        read.tighten(ctx)
    certificate, bound = branch.certificate, read.bound
    evidence: dict[str, object] = {
        "proved_bound": bound, "how": certificate.reason, "read": read.of, "points_compared": read.points,
        "compared": 0,  # no inverse was called: an audit is not conclusive by this alone
    }
    found = None if bound < 1.0 else read.find_two_sided(ctx)
    if bound < 1.0:
        statement, inverse = f"Lip(F − id) ≤ {rounded_up(bound)}", up(1.0 / down(1.0 - bound, 1), 1)
    elif found is not None and found.invertible:
        statement = f"⟨ΔF, Δx⟩ ≥ {rounded_up(-down(1.0 - found.monotone, 1)).removeprefix('-')}‖Δx‖²"
        inverse = up(1.0 / found.lower, 1) if found.lower > 0.0 else math.inf
        evidence |= {"monotone": found.monotone, "lower_stretch": found.lower, "upper_stretch": found.upper}
    else:
        what = f"Lip(F − id) ≤ {rounded_up(bound)} is what can be" if certificate.proved else "nothing can be"
        return Outcome("skipped", f"not proved: {what} proved here ({certificate.reason}){read.modes}", evidence, oracle=HOW)
    where = f" where F = x + g(x), which is {assumed}" if assumed else ""
    return Outcome("passed", f"proved: {statement}, so F is a bijection with Lip(F⁻¹) ≤ {rounded_up(inverse)}{where}{read.modes}",
                   {**evidence, "proved": f"F bijective{' if it is x + g(x)' if assumed else ''}", "inverse_lipschitz": inverse},
                   "none: the certificate is rounded up", HOW)


def _read(ctx: Context) -> tuple[ReadBranch, str]:
    """Return F − id, and what is assumed of it."""
    try:
        return read_forward(ctx), ""
    except Refused as why:
        if ctx.subject.residual is None:
            raise
        return read_residual(ctx), f"only compared, by lipschitz.residual-of-forward ({why})"
