"""How a bound on Lip(g) is shared among the layers of a branch."""

from __future__ import annotations

from iresnet_ref.errors import NotContractiveError


def lipschitz_shares(lipschitz: float, layers: int) -> float:
    """Return c with c^layers ≤ L also after the rounding of the certificate's product. Raises NotContractiveError."""
    if not 0.0 < lipschitz < 1.0:
        raise NotContractiveError(f"lipschitz: expected 0 < Lip(g) < 1 for F = id + g to be invertible, got {lipschitz}; try 0.9")
    return lipschitz ** (1.0 / layers) * (1.0 - 8.0 * layers * 2.0**-53)
