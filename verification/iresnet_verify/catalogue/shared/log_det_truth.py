"""What the checks of the log-det and of densities share: the truth on some rows, and what rounding allows a log-det to differ from it.

An exact log-det computed in the subject's own arithmetic from its own Jacobian errs as the oracle's does: each entry of
δJ ~ K·u·(‖J‖ + 1) moves log|det J| by tr(J⁻¹δJ) ≤ Σ_i 1/σ_i · ‖δJ‖₂, and a sum of logarithms by K·u·Σ|log σ_i|. So

    rounding = max(error of the oracle, K·u·√d·(‖J‖ + 1)·Σ 1/σ_i) + K·u·(Σ|log σ_i| + d),   K = 64,

and `slack` = error of the oracle + rounding. The oracle's error holds the conditioning of J at x (see `jacobian`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iresnet_verify.expectation.sampling import Claim
from iresnet_verify.oracle import singular_values as singular
from iresnet_verify.oracle.jacobian import Jacobian
from iresnet_verify.oracle.log_determinant import log_det_truth
from iresnet_verify.subject.frameworks import OPERATIONS

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.randomness.injection import Vector
    from iresnet_verify.subject.subject import HostArray


NO_VALUE = "the log-det is declared gradient-only: its value claims nothing"
SLACK = "oracle's error + K·u·√d·(‖J‖+1)·Σ1/σᵢ + K·u·(Σ|log σᵢ| + d), K = 64"
"""The derivation of `Truth.slack`."""


@dataclass(frozen=True)
class Truth:
    """log|det dF/dx| on the rows x, the oracle's error, and the slack an exact log-det has against it."""

    x: HostArray
    value: Vector
    error: Vector
    slack: Vector
    source: str
    jacobian: Jacobian

    def claim(self, ctx: Context, bias: float, rows: int, what: str = "log-det") -> Claim:
        """What the expectation of a log-det should be, on the first `rows` rows."""
        spectrum = None
        if ctx.subject.residual is not None or ctx.subject.lipschitz is not None:
            spectrum = moduli(self.jacobian.residual[:rows])
        slack = self.slack[:rows]
        return Claim(self.x[:rows], self.value[:rows], slack, bias, self.source, what, spectrum, self.jacobian.residual[:rows])


def moduli(J: Vector) -> Vector:
    """|eigenvalues| of every matrix; above d = LARGE its singular values, whose power sums bound those of the moduli (Weyl 1949)."""
    return singular.values(J) if J.shape[-1] > singular.LARGE else np.abs(np.linalg.eigvals(J))


def truth_at(ctx: Context, x: HostArray) -> Truth:
    """Return the truth on the rows of x."""
    J = ctx.jacobian(x)
    sigma = singular.values(J.matrix)
    value, error, source = log_det_truth(J, ctx.u, sigma)
    with np.errstate(divide="ignore", invalid="ignore"):
        entries = OPERATIONS * ctx.u * np.sqrt(ctx.d) * (sigma[:, 0] + 1.0) * (1.0 / sigma).sum(1)
        logs = OPERATIONS * ctx.u * (np.abs(np.log(sigma)).sum(1) + ctx.d)
    return Truth(x, value, error, error + np.maximum(error, entries) + logs, source, J)


def estimate_rows(ctx: Context) -> int:
    """Rows on which a random estimate is enumerated or sampled."""
    return {"quick": 2, "standard": 3}.get(ctx.budget.name, 6)


def is_deterministic(ctx: Context, x: HostArray) -> bool:
    """Whether the log-det has one value whatever the seed; one that is declared an estimate may agree by luck at a few seeds."""
    if ctx.log_det_claim[0] == "unbiased":
        return False
    first = ctx.evaluate_log_det(x, 11)
    return all(np.array_equal(first, ctx.evaluate_log_det(x, s), equal_nan=True) for s in (12, 13))


def limit(ctx: Context) -> float:
    """The largest error of the oracle with which a row still decides something: ε of the budget."""
    return ctx.budget.epsilon_per_dim * ctx.d


def decided(truth: Truth, limit: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Rows where the oracle's error leaves something to decide."""
    return np.isfinite(truth.value) & np.isfinite(truth.slack) & (truth.slack <= limit)
