"""Interception of the reference's draws: `iresnet_ref.Probes` is counter-based and uses no generator of a framework."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from iresnet_ref.probes import Probes
from iresnet_verify.randomness import distributions
from iresnet_verify.randomness.distributions import Distribution
from iresnet_verify.randomness.recorder import DrawRecorder, patch


def install(recorder: DrawRecorder, stack: ExitStack) -> None:
    """Record `Probes.signs`, `Probes.gaussians` and `Probes.lengths` until the stack is closed."""

    def recorded(name: str, distribution: Any) -> None:
        real = getattr(Probes, name)

        def draw(self: Probes, *args: Any, **kwargs: Any) -> Any:
            recorder.seeded(self.seed, "Probes")
            out = recorder.unrecorded(real, self, *args, **kwargs)
            given = recorder.record(f"Probes.{name}", distribution(*args, **kwargs), out, "subject")
            return out if given is None else _like(given, out)

        patch(stack, Probes, name, draw)

    recorded("signs", lambda *a, **k: distributions.two_point(-1.0, 1.0))
    recorded("gaussians", lambda *a, **k: distributions.normal())
    recorded("lengths", _length)


def _like(given: Any, out: Any) -> Any:
    import numpy as np

    return np.asarray(given).astype(out.dtype).reshape(out.shape)


def _length(batch: int, thresholds: Any, n_exact_terms: int) -> Distribution:
    """P(N ≥ n_exact_terms + 1 + i) = thresholds[i]/2⁶⁴ exactly."""

    def survival(k: int) -> float:
        if k <= n_exact_terms:
            return 1.0
        return int(thresholds[k - n_exact_terms - 1]) / 2.0**64 if k - n_exact_terms <= len(thresholds) else 0.0

    label = f"Probes.lengths (from {n_exact_terms} to {n_exact_terms + len(thresholds)})"
    return distributions.length(survival, start=n_exact_terms, label=label)
