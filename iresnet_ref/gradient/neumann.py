"""The Neumann series of the log-determinant's gradient, truncated or with Russian roulette ([C19] eq. 8).

∇ log det(I + J) = E[Σ_{k≤N} (−1)ᵏ/P(N ≥ k) vᵀJᵏ(∇J)v], k = 0, 1, …, with N drawn for each sample. The row vector is the
cotangent t̄ of the tangent t = Jv, so one reverse pass gives the gradient. Its *value* tr(J(I + J)⁻¹) is not the log-det.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from iresnet_ref.arrays import Array, HostArray, expand_rows
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.layers.tape import Tape
from iresnet_ref.log_determinant.methods import Roulette, Truncated
from iresnet_ref.log_determinant.ragged import Sum, ragged_series


def neumann_cotangent(chain: Chain, v: Array, lengths: HostArray, survival: Callable[[int], float]) -> Array:
    """Return t̄ = Σ_{k≤N} (−1)ᵏ/P(N ≥ k) (Jᵀ)ᵏv for v (count, batch, *event) and `lengths` N of shape (count, batch)."""
    return v + ragged_series(chain, v, lengths, neumann_terms(survival))[0]


def neumann_terms(survival: Callable[[int], float]) -> Sum:
    """Return Σ_{1≤k≤N} (−1)ᵏ/P(N ≥ k) (Jᵀ)ᵏv."""

    def power(w: Array, v: Array) -> Array:
        return w

    def divisor(k: int) -> float:
        return (-1.0) ** k * survival(k)

    return Sum(power, divisor)


def neumann_gradient(
    tape: Tape,
    x: Array,
    method: Roulette | Truncated,
    lipschitz: float,
    weights: Array,
    y_bar: Array | None,
    swept: tuple[Array, Array] | None = None,
) -> tuple[Array, dict[str, Array], HostArray, float]:
    """Return (x̄, gradients, products per row, truncation) of Σ_b w_b log det(I + J_g(x_b)) + Σ ȳᵀg(x), a mean over the probes.

    `swept` has the probes and their `neumann_cotangent` where they are known already.
    """
    lengths, survival, truncation = _lengths(method, x.shape[0], lipschitz)
    if swept is None:
        v = method.probes.draw(x)
        swept = v, neumann_cotangent(tape.jacobian, v, lengths, survival)
    v, cotangent = swept
    t_bar = cotangent * expand_rows(weights / v.shape[0], x.ndim - 1)
    x_bar, _, gradients = tape.pullback(y_bar, tape.push_in_front(v), t_bar, wants_v_bar=False)
    return x_bar, gradients, lengths.sum(axis=0), truncation


def _lengths(method: Roulette | Truncated, batch: int, lipschitz: float) -> tuple[HostArray, Callable[[int], float], float]:
    """Return N for each (probe, row), its survival function and the bound L^{n+1}/(1 − L) of what a truncation leaves out."""
    probes = method.probes
    if isinstance(method, Truncated):
        fixed = np.full((probes.count * probes.block, batch), method.terms)
        return fixed, lambda _: 1.0, truncation_factor(lipschitz, method.terms)
    drawn = method.table(lipschitz, gradient=True)
    sampled = np.repeat(probes.lengths(batch, drawn.thresholds, drawn.n_exact_terms), probes.block, axis=0)
    return sampled, drawn.survival, truncation_factor(lipschitz, drawn.last)


def truncation_factor(lipschitz: float, terms: int) -> float:
    """Return L^{n+1}/(1 − L) ≥ ‖Σ_{k>n} (−1)ᵏJᵏ‖₂ for ‖J‖₂ ≤ L."""
    return lipschitz ** (terms + 1) / (1.0 - lipschitz)
