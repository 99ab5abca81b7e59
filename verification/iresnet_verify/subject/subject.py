"""What is audited: a network's callables, what is claimed of them, and their framework, dtype and device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Native = Any
"""An array of the subject's own framework."""

HostArray = npt.NDArray[Any]

EventShape = tuple[int, ...]
LogDetClaim = str | float | Mapping[str, "str | float"]


def stated_claim(subject: Subject, mode: str | None) -> str | float:
    """What `log_det_is` says of one mode; where it says nothing, "exact"."""
    claim = subject.log_det_is
    if claim is None:
        return "exact"
    if isinstance(claim, Mapping):
        return claim[mode] if mode is not None and mode in claim else next(iter(claim.values()))
    return claim


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An invertible network and its promises. Every field but the first three is optional."""

    name: str
    event_shape: EventShape
    forward: Callable[..., Any]
    """x -> y, or (y, log_det); arrays of the subject's framework."""
    inverse: Callable[..., Any] | None = None
    """y -> x, or (x, log_det of the inverse)."""
    log_det: Callable[..., Any] | None = None
    """x -> log|det dF/dx|, in any of the shapes that packages return."""
    inverse_log_det: Callable[..., Any] | None = None
    """y -> log|det dF⁻¹/dy|."""
    residual: Callable[..., Any] | None = None
    """g, where F = id + g."""
    standard_error: Callable[..., Any] | None = None
    """x -> (log_det, its standard error), of the same draws."""

    # -- what is claimed
    lipschitz: float | None = None
    """A bound on Lip(g)."""
    lipschitz_holds: str = "now"
    """"now" | "after-refresh" | "always"."""
    log_det_is: LogDetClaim | None = None
    """"exact" | "unbiased" | b (nats) | "gradient-only", or {"train": …, "eval": …}. None, nothing stated: exact where it is the same
    under every seed, unbiased where it is random."""
    inverse_tolerance: float | None = None
    """‖inverse(y) − x‖₂ ≤ tol·max(1, ‖x‖₂) per row; None: u^(1/3) of the dtype."""
    accuracy: float | None = None
    """Relative accuracy of forward and log_det themselves; None: rounding."""

    # -- its inputs, framework and device
    inputs: Callable[[int, np.random.Generator], HostArray] | None = None
    """(n, rng) -> NumPy array (n, *event_shape); default normal at scales .1, 1, 3."""
    other_shapes: tuple[EventShape, ...] = ()
    """Further event shapes at which forward, inverse, log_det and residual keep their promises (convolutions)."""
    context_shape: EventShape | None = None
    log_prob: Callable[..., Any] | None = None
    """Density of forward's input."""
    sample: Callable[..., Any] | None = None
    """n -> samples of forward's input."""
    base_log_prob: Callable[..., Any] | None = None
    """Density of forward's output."""

    # -- what the callables are made of
    module: Any = None
    """torch.nn.Module: enables gradient, state and mode checks."""
    from_parameters: Callable[[Any], Subject] | None = None
    """pytree -> Subject (JAX): enables checks of parameter gradients, with `parameters`."""
    parameters: Any = None
    """The pytree that `from_parameters` takes, as it is now: a dictionary, an Equinox module, the state of a Flax module."""
    fresh: Callable[..., Subject] | None = None
    """(dtype=None, device=None) -> a newly built Subject; it takes the names of `arguments` as keywords too."""
    arguments: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    """{name: (another value, "forward" | "inverse" | "log_det" | "variance")}: constructor arguments of the network and what each acts on
    at the same parameters, "variance" being that of a random log-det. `fresh(**{name: value})` builds the network with the other value,
    which should be far from the own: {"coefficient": (0.5, "forward"), "n_probes": (16, "variance"), "max_iterations": (1, "inverse")}."""
    refresh: Callable[[], None] | None = None
    """The call that re-normalises."""
    linear_maps: Callable[[], Sequence[tuple[Any, ...]]] | None = None
    """() -> [(name, apply, in_shape)] or, with the norm claimed for it, (name, apply, in_shape, norm): effective operators."""
    randomness: Callable[..., AbstractContextManager[Any]] | None = None
    """randomness(draw) -> context manager; draw(kind, shape) gives the next array."""
    modes: tuple[str, ...] = ("train", "eval")
    framework: str = "torch"
    dtype: str = "float64"
    device: str = "cpu"
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    """{check id: reason}, strict."""
