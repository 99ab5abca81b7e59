"""One-liners that turn an object of a published package into a `Subject`: one function for each way of being called.

    pair          forward(x), inverse(y) -> (out, log_det)           nflows, normflows, torchflows, enflows, distrax
    event_pair    the same on a single event, without a batch (JAX)  flowjax
    transform     t(x), t.inv, log_abs_det_jacobian(x, y)            torch.distributions, pyro, zuko, flowtorch
    inn           m([x], rev=…, jac=True) -> ([y], log_det)          FrEIA
    density_pair  forward(x, log_density) -> (y, log_density − …)    bijx
    reversible    m(x), m.inverse(y) without a log-det               memcnn
    ode           dx/dt = f(t, x)                                    torchdiffeq
    recognise     any of the above, whichever the object is

Each takes further `Subject` fields by keyword. No package is imported that the object does not come from. The adapters
change nothing that the package returns: the suite normalises the shapes of log-dets, and no sign is ever chosen to make a log-det fit.
Only a log-det of one number for several rows is ambiguous, the same for all rows or their sum: `recognise` tells
them apart by calling with single rows, and raises an error with both values where neither explains the calls.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from iresnet_verify.subject.calls import Caller
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.frameworks import framework_of
from iresnet_verify.subject.module_state import is_torch_module, preserved
from iresnet_verify.subject.outputs import describe, unpack
from iresnet_verify.subject.subject import EventShape, Subject

__all__ = ["certifier", "density_pair", "event_pair", "inn", "ode", "pair", "recognise", "reversible", "transform"]

Object = Any
"""An object of a published package."""


def pair(
    obj: Object, event_shape: EventShape, *, forward: str = "forward", inverse: str | None = "inverse", **fields: Any
) -> Subject:
    """Methods that return (out, log_det) on a batch; `forward` and `inverse` are their names.

    >>> pair(nflows_transform, (6,))                                                        # doctest: +SKIP
    >>> pair(distrax_bijector, (6,), forward="forward_and_log_det", inverse="inverse_and_log_det")  # doctest: +SKIP
    """
    return _subject(obj, event_shape, getattr(obj, forward), None if inverse is None else getattr(obj, inverse), fields)


def event_pair(
    obj: Object, event_shape: EventShape, *, forward: str = "transform_and_log_det", inverse: str = "inverse_and_log_det",
    **fields: Any,
) -> Subject:
    """JAX methods that return (out, log_det) for one event, vectorised by `jax.vmap` and compiled once.

    >>> event_pair(flowjax.bijections.Affine(jnp.ones(3), 2 * jnp.ones(3)), (3,))           # doctest: +SKIP
    """
    import jax

    def batched(name: str) -> Callable[[Any], Any]:
        return jax.jit(jax.vmap(getattr(obj, name)))

    return _subject(obj, event_shape, batched(forward), batched(inverse), {"framework": "jax", **fields})


def transform(make: Object, event_shape: EventShape, **fields: Any) -> Subject:
    """A `torch.distributions.Transform`, or a callable without arguments that makes one from the parameters of the moment.

    The log-det is asked for the very x and y of the call, as the interface wants it.

    >>> transform(pyro.distributions.transforms.affine_coupling(4), (4,))                   # doctest: +SKIP
    >>> transform(lambda: zuko_flow().transform, (4,), module=zuko_flow)                              # doctest: +SKIP
    """
    given = hasattr(make, "log_abs_det_jacobian")

    def now() -> Any:
        return make if given else make()

    def forward(x: Any) -> Any:
        t = now()
        y = t(x)
        return y, t.log_abs_det_jacobian(x, y)

    return _subject(make, event_shape, forward, lambda y: now().inv(y), fields)


def inn(obj: Object, event_shape: EventShape, **fields: Any) -> Subject:
    """FrEIA: a `SequenceINN` or `GraphINN` (tensors), or one of its modules (lists of one tensor).

    >>> inn(FrEIA.framework.SequenceINN(6), (6,))                                           # doctest: +SKIP
    """
    network = any(c.__name__ in ("SequenceINN", "GraphINN") for c in type(obj).__mro__)

    def call(x: Any, rev: bool) -> Any:
        return obj(x if network else [x], rev=rev, jac=True)

    return _subject(obj, event_shape, lambda x: call(x, False), lambda y: call(y, True), fields)


def density_pair(obj: Object, event_shape: EventShape, **fields: Any) -> Subject:
    """Methods `forward(x, log_density)` and `reverse(y, log_density)` that subtract the log-det of their direction.

    >>> density_pair(bijx.AffineLinear((3,)), (3,))                                         # doctest: +SKIP
    """

    def direction(method: Callable[..., Any]) -> Callable[[Any], Any]:
        def call(x: Any) -> Any:
            y, log_density = method(x, x.reshape(x.shape[0], -1)[:, 0] * 0)
            return y, -log_density

        return call

    return _subject(obj, event_shape, direction(obj.forward), direction(obj.reverse), {"framework": "jax", **fields})


def reversible(obj: Object, event_shape: EventShape, **fields: Any) -> Subject:
    """A module with `obj(x)` and `obj.inverse(y)` and no log-det. It gets clones: some free the storage of their input.

    >>> reversible(memcnn.InvertibleModuleWrapper(memcnn.AdditiveCoupling(Fm)), (4, 8, 8))  # doctest: +SKIP
    """
    return _subject(obj, event_shape, lambda x: obj(x.clone()), lambda y: obj.inverse(y.clone()), fields)


def ode(
    dynamics: Object, event_shape: EventShape, *, times: tuple[float, float] = (0.0, 1.0), rtol: float = 1e-9,
    atol: float = 1e-9, accuracy: float = 1e-6, **fields: Any,
) -> Subject:
    """A continuous flow of torchdiffeq: x(t₁) from dx/dt = dynamics(t, x), log_det = ∫ tr ∂f/∂x dt with the exact trace.

    `accuracy` is what is claimed of the solution (relative); steps are chosen for the whole batch, so rows depend on
    each other to that accuracy. Chen et al. 2018 (arXiv 1806.07366), eq. 8.

    >>> ode(lambda t, x: torch.tanh(layer(x)), (2,), module=layer)                          # doctest: +SKIP
    """

    def solve(x: Any, start: float, end: float) -> Any:
        import torch
        from torchdiffeq import odeint

        def field(t: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
            with torch.enable_grad():
                at = state[0] if state[0].requires_grad else state[0].detach().requires_grad_()
                f = dynamics(t, at)
                columns = f.reshape(len(f), -1)
                trace = torch.zeros_like(columns[:, 0])
                for i in range(columns.shape[1]):
                    (row,) = torch.autograd.grad(columns[:, i].sum(), at, create_graph=True)
                    trace = trace + row.reshape(len(f), -1)[:, i]
            return f, trace

        span = torch.tensor([start, end], dtype=x.dtype, device=x.device)
        y, log_det = odeint(field, (x, torch.zeros(len(x), dtype=x.dtype, device=x.device)), span, rtol=rtol, atol=atol)
        return y[-1], log_det[-1]

    fields = {"accuracy": accuracy, "inverse_tolerance": 100 * accuracy, **fields}
    return _subject(dynamics, event_shape, lambda x: solve(x, *times), lambda y: solve(y, *times[::-1]), fields)


SHARE = 0.9
"""Lip(g) that a certifier claims after its module has been scaled: what is refuted at this is refuted at its own number."""


def certifier(bound: Callable[[Object], Any], module: Object, event_shape: EventShape, **fields: Any) -> Subject:
    """A claim Lip(module) ≤ bound(module) of a torch module, as that of the block x + g(x), g = module·SHARE/bound: Lip(g) ≤ SHARE.

    The audit searches for the counterexample, and proves the claim where it can. Where the module changes the number of entries,
    events are flat and as long as the larger of the two: zeros are appended, which changes no norm.
    Raises SubjectError for a bound that is not positive and finite.

    >>> certifier(lambda net: net.k_coef_lip, torchlip.Sequential(…, k_coef_lip=0.5), (3,))   # doctest: +SKIP
    """
    import torch

    claimed = bound(module)
    claimed = float(claimed.detach() if hasattr(claimed, "detach") else claimed)
    if not 0.0 < claimed < math.inf:
        raise SubjectError(f"certifier: expected a positive finite bound on Lip(module), got {claimed}; try bound=lambda module: …")
    scale = SHARE / claimed
    like = next((t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), torch.zeros(1))
    with torch.no_grad(), preserved(module):
        out = tuple(module(torch.zeros((2, *event_shape), dtype=like.dtype, device=like.device)).shape[1:])
    inside, outside = math.prod(event_shape), math.prod(out)
    size = max(inside, outside)
    same = inside == outside

    def g(x: Any) -> Any:
        z = x if same else x[:, :inside].reshape(x.shape[0], *event_shape)
        y = module(z) * scale
        return y.reshape(x.shape) if same else torch.nn.functional.pad(y.reshape(x.shape[0], outside), (0, size - outside))

    name = f"{type(module).__module__.split('.')[0]} {type(module).__name__}, claimed Lip ≤ {claimed:.6g}"
    given = {"name": name, "residual": g, "lipschitz": SHARE, "module": module, "modes": ("eval",), **fields}
    return _subject(module, event_shape if same else (size,), lambda x: x + g(x), None, given)


def recognise(obj: Object, event_shape: EventShape, **fields: Any) -> Subject:
    """Find how `obj` is called from the methods it has, confirm it by calling, and settle what one number per batch means.

    Raises `SubjectError` where no convention is known, where the calls do not keep the one found, or where neither
    meaning of a log-det explains the calls.

    >>> recognise(FrEIA.framework.SequenceINN(6), (6,))                                     # doctest: +SKIP
    """
    subject = _candidate(obj, event_shape, fields)
    framework = framework_of(subject)
    caller = Caller(subject, framework, 0)
    x = np.random.default_rng(0).standard_normal((3, *event_shape))
    with preserved(subject.module):
        y, log_det = caller.event("forward", framework.native(x), seed=0)
        back = y if subject.inverse is None else caller.event("inverse", framework.native(framework.host(y)), seed=0)[0]
        del back  # its shape is what was asked
        raw = unpack("forward", caller.invoke("forward", framework.native(x), seed=0))[1]
        if log_det is None or math.prod(getattr(raw, "shape", ())) != 1:
            return subject
        total = float(framework.host(log_det)[0])
        one = [caller.event("forward", framework.native(x[i : i + 1]), seed=0)[1] for i in range(3)]
        each = np.array([float(framework.host(v)[0]) for v in one if v is not None])
    allowed = 3 * 64 * np.finfo(subject.dtype).eps * (1 + np.abs(each).sum())
    if np.abs(each - total).max() <= allowed:
        return subject
    if abs(each.sum() - total) <= allowed:
        return _by_rows(subject, framework)
    raise SubjectError(f"log_det: expected one number per row, got {describe(raw)} for 3 rows, {total:.8g}; read as the same "
                       f"for every row it should be {each.tolist()} row by row, read as their sum {each.sum():.8g}; "
                       "try log_det=lambda x: … with one number per row")


def _candidate(obj: Object, event_shape: EventShape, fields: dict[str, Any]) -> Subject:
    package = type(obj).__module__.split(".")[0]
    if hasattr(obj, "transform_and_log_det"):
        return event_pair(obj, event_shape, **fields)
    if hasattr(obj, "forward_and_log_det"):
        options = {"framework": "jax", **fields} if package != "torch" and not is_torch_module(obj) else fields
        return pair(obj, event_shape, forward="forward_and_log_det", inverse="inverse_and_log_det", **options)
    if hasattr(obj, "log_abs_det_jacobian"):
        return transform(obj, event_shape, **fields)
    parameters = _parameters(getattr(obj, "forward", None))
    if {"rev", "jac"} <= parameters:
        return inn(obj, event_shape, **fields)
    if "log_density" in parameters:
        return density_pair(obj, event_shape, **fields)
    if callable(getattr(obj, "forward", None)) and callable(getattr(obj, "inverse", None)):
        return pair(obj, event_shape, **fields)
    raise SubjectError(f"expected an object with forward and inverse, transform_and_log_det, forward_and_log_det or "
                       f"log_abs_det_jacobian, got {type(obj).__name__}; try Subject(name=…, event_shape=…, forward=…)")


def _parameters(method: Any) -> set[str]:
    try:
        return set(inspect.signature(method).parameters)
    except (TypeError, ValueError):
        return set()


def _by_rows(subject: Subject, framework: Any) -> Subject:
    """The subject whose log-dets are sums over the batch, called with one row at a time."""
    from dataclasses import replace

    import array_api_compat as compat

    def rows(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(x: Any) -> Any:
            xp = compat.array_namespace(x)
            parts = [unpack("row", function(x[i : i + 1]))[:2] for i in range(x.shape[0])] or [unpack("row", function(x))[:2]]
            return xp.concat([p[0] for p in parts], axis=0), xp.concat([xp.reshape(p[1], (-1,)) for p in parts])[: x.shape[0]]

        return call

    inverse = subject.inverse
    return replace(subject, forward=rows(subject.forward), inverse=None if inverse is None else rows(inverse))


def _subject(obj: Object, event_shape: EventShape, forward: Any, inverse: Any, fields: dict[str, Any]) -> Subject:
    """Fill in what the object itself tells: its name, the module, and the dtype and device of its parameters."""
    kept: dict[str, Any] = {"name": f"{type(obj).__module__.split('.')[0]} {type(obj).__name__}"}
    module: Any = fields.get("module", obj)
    if is_torch_module(module):
        kept["module"] = module
        tensors = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
        if tensors:
            kept |= {"dtype": str(tensors[0].dtype).removeprefix("torch."), "device": str(tensors[0].device)}
    kept |= {"event_shape": event_shape, "forward": forward, "inverse": inverse, **fields}
    return Subject(**kept)
