"""The reference's own draws: `iresnet_ref.Probes` is counter-based, so no generator of a framework ever sees it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from iresnet_ref.probes import Probes
from iresnet_verify.randomness import distributions
from iresnet_verify.randomness.distributions import Distribution
from iresnet_verify.randomness.watch import Watch, patch


def install(watch: Watch, stack: ExitStack) -> None:
    """Watch `Probes.signs`, `Probes.gaussians` and `Probes.lengths` until the stack is closed."""

    def watched(name: str, distribution: Any) -> None:
        real = getattr(Probes, name)

        def draw(self: Probes, *args: Any, **kwargs: Any) -> Any:
            out = watch.inside(real, self, *args, **kwargs)
            given = watch.ask(f"Probes.{name}", distribution(*args, **kwargs), out, "subject")
            return out if given is None else _like(given, out)

        patch(stack, Probes, name, draw)

    watched("signs", lambda *a, **k: distributions.two_point(-1.0, 1.0))
    watched("gaussians", lambda *a, **k: distributions.normal())
    watched("lengths", _length)


def _like(given: Any, out: Any) -> Any:
    import numpy as np

    return np.asarray(given).astype(out.dtype).reshape(out.shape)


def _length(batch: int, thresholds: Any, sure: int) -> Distribution:
    """P(N ≥ sure + 1 + i) = thresholds[i]/2⁶⁴ exactly."""

    def survival(k: int) -> float:
        if k <= sure:
            return 1.0
        return int(thresholds[k - sure - 1]) / 2.0**64 if k - sure <= len(thresholds) else 0.0

    return distributions.length(survival, start=sure, label=f"Probes.lengths (from {sure} to {sure + len(thresholds)})")
