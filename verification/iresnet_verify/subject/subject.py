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
    """An invertible network F and what is claimed of it. Every field but the first three is optional.

    Arrays are those of `framework`, batch first: (batch, *event_shape). A check runs where it finds what it needs, and is
    skipped, with its reason, where it does not: leave out what the network does not have.

    Errors: `SubjectError` from `audit`, at the first field that does not keep its contract.

    >>> import numpy as np
    >>> Subject(name="double", event_shape=(2,), forward=lambda x: 2 * x, inverse=lambda y: y / 2, framework="numpy").dtype
    'float64'
    >>> import torch
    >>> flow = torch.nn.Linear(2, 2).double()
    >>> Subject(name="linear", event_shape=(2,), forward=flow, module=flow).framework
    'torch'
    """

    name: str
    """What reports and tests call it. Example: `name="my flow"`"""
    event_shape: EventShape
    """The shape of one row of the batch, without the batch. Example: `event_shape=(3,)`, of images `event_shape=(1, 28, 28)`"""
    forward: Callable[..., Any]
    """F: x -> y, or (y, log|det dF/dx|). Example: `forward=flow`"""
    inverse: Callable[..., Any] | None = None
    """F⁻¹: y -> x, or (x, log-det of the inverse). Example: `inverse=flow.inverse`"""
    log_det: Callable[..., Any] | None = None
    """x -> log|det dF/dx| in nats, (batch,) or any of the shapes that packages return; leave it out where `forward` returns it. Example:
    `log_det=flow.log_det`"""
    inverse_log_det: Callable[..., Any] | None = None
    """y -> log|det dF⁻¹/dy|, where `inverse` does not return it. Example: `inverse_log_det=lambda y: -flow.log_det(flow.inverse(y))`"""
    residual: Callable[..., Any] | None = None
    """g, where F = id + g; without it g is F − id, which loses digits where g is small. Example: `residual=flow.branch`"""
    standard_error: Callable[..., Any] | None = None
    """x -> (log_det, its standard error), both of the same draws: the claim that the second is the spread of the first. Example:
    `standard_error=flow.log_det_and_error`"""

    # -- what is claimed
    lipschitz: float | None = None
    """A bound on Lip(g), in [0, 1). None: nothing is claimed. Example: `lipschitz=0.97`"""
    lipschitz_holds: str = "now"
    """When the bound holds: "now" (for the parameters as delivered), "after-refresh" (once `refresh` was called) or "always" (for any
    parameters, as when they are normalised at each call). Example: `lipschitz_holds="always"`"""
    log_det_is: LogDetClaim | None = None
    """What a log-det is: "exact" to rounding, "unbiased" (random, with the right mean), a bound b on |E[log_det] − truth| in nats, or
    "gradient-only" (its value means nothing); or one of these for each mode. None, nothing stated: exact where it is the same under every
    seed, unbiased where it is random. Examples: `log_det_is="unbiased"`, `log_det_is=0.05`,
    `log_det_is={"train": "unbiased", "eval": "exact"}`"""
    inverse_tolerance: float | None = None
    """‖inverse(y) − x‖₂ ≤ tol·max(1, ‖x‖₂) on every row. None: u^(1/3) of the dtype, 4.8e-6 in float64, and the measured error is
    reported. Example: `inverse_tolerance=1e-10`"""
    accuracy: float | None = None
    """Relative accuracy of `forward` and `log_det` themselves, where they are solvers (an ODE, a bisection). None: rounding. Example:
    `accuracy=1e-5`"""

    # -- its inputs, framework and device
    inputs: Callable[[int, np.random.Generator], HostArray] | None = None
    """(n, rng) -> NumPy array (n, *event_shape): where the promises hold. None: normal rows at scales .1, 1 and 3. Example:
    `inputs=lambda n, rng: rng.uniform(0, 1, (n, 3))`"""
    other_shapes: tuple[EventShape, ...] = ()
    """Further event shapes at which forward, inverse, log_det and residual keep their promises (convolutions). Example:
    `other_shapes=((1, 16, 16),)`"""
    context_shape: EventShape | None = None
    """The shape of one row of the context h of a conditional map: every callable is then called as f(x, h), h of shape
    (batch, *context_shape). Example: `context_shape=(5,)`"""
    log_prob: Callable[..., Any] | None = None
    """x -> log p(x) in nats, the density of forward's input. Example: `log_prob=flow.log_prob`"""
    sample: Callable[..., Any] | None = None
    """n -> n samples of forward's input. Example: `sample=flow.sample`"""
    base_log_prob: Callable[..., Any] | None = None
    """y -> log p_Z(y) in nats, the density of forward's output. Example: `base_log_prob=lambda y: base.log_prob(y).sum(1)`"""

    # -- what the callables are made of
    module: Any = None
    """The torch.nn.Module that the callables use: its gradients, state, modes and layers are checked. Example: `module=flow`"""
    from_parameters: Callable[[Any], Subject] | None = None
    """pytree -> Subject, for JAX: gradients of parameters are checked through it, with `parameters`. Example:
    `from_parameters=subject_of`"""
    parameters: Any = None
    """The pytree that `from_parameters` takes, as it is now: a dictionary, an Equinox module, the state of a Flax module. Example:
    `parameters=weights`"""
    fresh: Callable[..., Subject] | None = None
    """(dtype=None, device=None) -> a newly built Subject, with other random weights; states are loaded into it, and a float64 twin serves
    as oracle for float32. Example: `fresh=lambda dtype=None, device=None: factory(dtype)`"""
    arguments: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    """{name: (another value, "forward" | "inverse" | "log_det" | "variance")}: constructor arguments of the network and what each acts on
    at the same parameters, "variance" being that of a random log-det. `fresh(**{name: value})` builds the network with the other value,
    which should be far from the own. Example: `arguments={"n_probes": (16, "variance"), "max_iterations": (1, "inverse")}`"""
    refresh: Callable[[], None] | None = None
    """The call that normalises again after parameters have changed. Example: `refresh=flow.update_lipschitz`"""
    linear_maps: Callable[[], Sequence[tuple[Any, ...]]] | None = None
    """() -> [(name, apply, in_shape)] or, with the norm claimed for it, (name, apply, in_shape, norm): the linear layers of g. None: found
    in the torch module. Example: `linear_maps=lambda: [("first", lambda v: v @ weight.T, (3,), 0.97)]`"""
    randomness: Callable[..., AbstractContextManager[Any]] | None = None
    """randomness(draw) -> context manager under which the network takes its draws from draw(kind, shape), kind "probe" or "length": for
    generators that cannot be intercepted. None: draws of torch, NumPy, `random` and `ir.Probes` are found. Example:
    `randomness=draws_from`"""
    modes: tuple[str, ...] = ("train", "eval")
    """The modes of `module` in which the promises hold. Example: `modes=("eval",)`"""
    framework: str = "torch"
    """Whose arrays the callables take: a name of `iresnet_backends.get`. Examples: `framework="numpy"`, `framework="jax"`"""
    dtype: str = "float64"
    """The dtype of the arrays; tolerances are derived from its unit roundoff. Example: `dtype="float32"`"""
    device: str = "cpu"
    """Where the arrays are. Example: `device="cuda:0"`"""
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    """{check id: reason}: these failures are known. Strict: one that passes is a failure. Example:
    `expected_failures={"inverse.keeps-tolerance": "stops after five steps"}`"""
