"""The arithmetic in which norms are proved: IEEE float64 on the host, as it is at this moment, in this thread."""

from __future__ import annotations

from iresnet_ref.errors import HostArithmeticError

_SUBNORMAL = 1.1125369292536007e-308
"""2⁻¹⁰²³, written out: it must not be computed in the arithmetic that it probes."""


def require_gradual_underflow() -> None:
    """Refuse to prove where a product of subnormal numbers is flushed to zero: 1.5e-308·1.7e307 would then be 0.

    Python, NumPy and LAPACK share the mode of the thread. Cost: one product. Raises HostArithmeticError.
    """
    if _SUBNORMAL * 0.5 == 0.0:
        raise HostArithmeticError(
            "expected IEEE float64 on the host, in which norms are proved, got a subnormal product flushed to zero; try "
            "torch.set_flush_denormal(False), or switch FTZ and DAZ off where a framework, or a library built with -ffast-math, set them"
        )
