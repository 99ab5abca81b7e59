"""A proof of the claimed bound where the branch can be read: a pass holds for all inputs, not for those that were tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iresnet_verify.catalogue.shared.readable_branch import HOW, read_residual, rounded_up
from iresnet_verify.catalogue.shared.stretch_search import rounding_of_claim
from iresnet_verify.check.outcome import Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import above_claim, beyond

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context


@check(
    "lipschitz.proved",
    claim="The claimed bound is proved for the parameters of now, on all of ℝᵈ: Lip(g) ≤ L, g in real arithmetic with the stored numbers.",
    reference="docs/proofs.md of iresnet-ref; Fazlyab et al. 2019 (arXiv 1906.04893)", kind="proof", needs=("lipschitz",), modes=False,
    cost="one forward pass that is recorded, 1,001 that are compared with it, and a search for multipliers (seconds at widths in the "
    "hundreds) where the product of norms is above L, or the budget is more than quick",
    catches="nothing by itself: where it passes no search can refute the claim; where it does not, it says what is proved instead",
)
def proved(ctx: Context) -> Outcome:
    """The residual is read operation by operation (docs/modules.md) and certified; what cannot be read is refused by its name.

    A bound above the claim refutes nothing: the check is then skipped with the bound, and the searches decide.
    """
    L = ctx.subject.lipschitz
    assert L is not None
    read = read_residual(ctx)
    slack = rounding_of_claim(ctx)
    limit = L * (1.0 + slack)
    if ctx.budget.name != "quick" or not read.branch.certificate.bound <= limit:
        read.tighten(ctx)
    certificate, bound = read.branch.certificate, read.bound
    evidence: dict[str, Any] = {"claimed": L, "proved_bound": bound, "how": certificate.reason, "read": read.of, "compared": read.points}
    if read.rounded:
        evidence["rounded"] = read.rounded
    if not bound <= limit:
        what = f"Lip(g) ≤ {beyond(bound, L)} is what can be" if certificate.proved else "nothing can be"
        message = f"not proved: {what} proved here, claimed {L:.6g} ({certificate.reason}){read.modes}"
        return Outcome("skipped", message, evidence, oracle=HOW)
    everywhere = read.on_every_image()
    also = "" if everywhere is None else f", and Lip(g) ≤ {rounded_up(everywhere)} on images of every size"
    above = bound > L
    short = rounded_up(bound)
    statement = f"Lip(g) ≤ {beyond(bound, L) if above else short if float(short) <= L else f'{bound:.17g}'}"
    return Outcome(
        "passed", f"proved: {statement}{also}, claimed {L:.6g}{above_claim(bound, L)} ({certificate.reason}){read.modes}",
        {**evidence, "proved": statement} | ({} if everywhere is None else {"on_every_image": everywhere}),
        f"L(1 + {slack:.1e}), 4nu for each layer; the certificate is rounded up", HOW,
    )
