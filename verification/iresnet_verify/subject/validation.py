"""Is this a `Subject` at all? Every field is checked once, before anything is called; each fault names its remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.frameworks import UNIT_ROUNDOFF
from iresnet_verify.subject.module_state import has_modes
from iresnet_verify.subject.subject import Subject

CALLABLES = ("forward", "inverse", "log_det", "inverse_log_det", "residual", "inputs", "log_prob", "sample", "standard_error",
             "base_log_prob", "from_parameters", "fresh", "refresh", "linear_maps", "randomness")
ACTS_ON = ("forward", "inverse", "log_det", "variance")
"""What a constructor argument may act on."""
CLAIMS = ("exact", "unbiased", "gradient-only")
LIPSCHITZ_HOLDS = ("now", "after-refresh", "always")


def validate(subject: object) -> None:
    """Raise a `SubjectError` at the first field that does not keep the contract."""
    if not isinstance(subject, Subject):
        got = type(subject).__name__
        raise SubjectError(f"expected a Subject, got {got}; try Subject(name=…, event_shape=…, forward=…)")
    _name_and_shapes(subject)
    _callables(subject)
    _numbers(subject)
    _where_it_lives(subject)
    _log_det_is(subject)
    _arguments(subject)


def _fault(field: str, expected: str, got: object, remedy: str) -> SubjectError:
    return SubjectError(f"{field}: expected {expected}, got {got!r}; try {remedy}")


def _name_and_shapes(subject: Subject) -> None:
    if not isinstance(subject.name, str) or not subject.name.strip():
        raise _fault("name", "a non-empty string", subject.name, "name='my flow'")
    shapes: list[tuple[str, Any]] = [("event_shape", subject.event_shape)]
    shapes += [("other_shapes", s) for s in subject.other_shapes]
    if subject.context_shape is not None:
        shapes.append(("context_shape", subject.context_shape))
    for field, shape in shapes:
        if not isinstance(shape, tuple) or not all(isinstance(k, int) and not isinstance(k, bool) for k in shape):
            raise _fault(field, "a tuple of integers without the batch", shape, "(3,) or (1, 28, 28)")
        if any(k < 1 for k in shape):
            raise _fault(field, "every axis at least 1 (an event of d = 0 has no determinant)", shape, "(3,)")


def _callables(subject: Subject) -> None:
    for field in CALLABLES:
        value = getattr(subject, field)
        if value is not None and not callable(value):
            raise _fault(field, "a callable", value, f"{field}=lambda x: …")
    if subject.parameters is not None and subject.from_parameters is None:
        raise _fault("from_parameters", "a callable, as parameters are given", None, "from_parameters=lambda pytree: Subject(…)")
    if subject.forward is None:
        raise _fault("forward", "a callable", None, "forward=lambda x: module(x)")


def _numbers(subject: Subject) -> None:
    L = subject.lipschitz
    if L is not None and not (_real(L) and 0 <= L < 1):
        raise _fault("lipschitz", "a bound on Lip(g) in [0, 1), without which x + g(x) need not be invertible", L,
                     "lipschitz=0.97, or None where nothing is claimed")
    if subject.lipschitz_holds not in LIPSCHITZ_HOLDS:
        raise _fault("lipschitz_holds", f"one of {LIPSCHITZ_HOLDS}", subject.lipschitz_holds, "'now'")
    if subject.lipschitz_holds == "after-refresh" and subject.refresh is None:
        raise _fault("refresh", "a callable, as lipschitz_holds='after-refresh' needs it", None,
                     "refresh=lambda: update_lipschitz(model, 50)")
    for field in ("inverse_tolerance", "accuracy"):
        value = getattr(subject, field)
        if value is not None and not (_real(value) and 0 < value < math.inf):
            raise _fault(field, "a positive number or None", value, f"{field}=1e-6")


def _where_it_lives(subject: Subject) -> None:
    if not isinstance(subject.framework, str) or not subject.framework:
        raise _fault("framework", "a name such as 'torch' or 'numpy'", subject.framework, "framework='torch'")
    if subject.dtype not in UNIT_ROUNDOFF:
        raise _fault("dtype", f"one of {sorted(UNIT_ROUNDOFF)}", subject.dtype, "dtype='float64'")
    if not isinstance(subject.device, str) or not subject.device:
        raise _fault("device", "a name such as 'cpu' or 'cuda:0'", subject.device, "device='cpu'")
    modes = subject.modes
    if not isinstance(modes, tuple) or not modes or len(set(modes)) != len(modes) or set(modes) - {"train", "eval"}:
        raise _fault("modes", "a non-empty tuple of 'train' and 'eval'", modes, "modes=('eval',)")
    if not isinstance(subject.expected_failures, Mapping) or not all(
        isinstance(k, str) and isinstance(v, str) and v.strip() for k, v in subject.expected_failures.items()
    ):
        raise _fault("expected_failures", "{check id: reason}", subject.expected_failures,
                     "{'inverse.recovers-input': 'why it is known to fail'}")


def _log_det_is(subject: Subject) -> None:
    claim = subject.log_det_is
    if claim is None:
        return
    if isinstance(claim, Mapping):
        if set(claim) - {"train", "eval"} or not claim:
            raise _fault("log_det_is", "modes 'train' and 'eval' as keys", sorted(map(str, claim)),
                         "{'train': 'unbiased', 'eval': 'exact'}")
        missing = [m for m in subject.modes if m not in claim] if has_modes(subject.module) else []
        if missing:
            raise _fault("log_det_is", f"a claim for each of modes={subject.modes}", dict(claim),
                         f"adding {missing[0]!r}, or modes={tuple(claim)}")
        if not has_modes(subject.module) and len({str(v) for v in claim.values()}) > 1:
            raise _fault("log_det_is", "one claim, as there is no module whose mode could be switched", dict(claim),
                         "module=…, or one claim")
    for value in claim.values() if isinstance(claim, Mapping) else [claim]:
        number = value if isinstance(value, int | float) and _real(value) else -1.0
        if value not in CLAIMS and not 0 <= number < math.inf:
            raise _fault("log_det_is", f"one of {CLAIMS} or a bound in nats ≥ 0", value, "'exact'")


def _arguments(subject: Subject) -> None:
    example = "arguments={'coefficient': (0.5, 'forward')}"
    if not isinstance(subject.arguments, Mapping):
        raise _fault("arguments", "{name: (another value, what it acts on)}", subject.arguments, example)
    for name, entry in subject.arguments.items():
        if not isinstance(name, str) or not isinstance(entry, tuple) or len(entry) != 2 or entry[1] not in ACTS_ON:
            raise _fault("arguments", f"{{name: (another value, one of {ACTS_ON})}}", {name: entry}, example)
        if entry[1] == "inverse" and subject.inverse is None:
            raise _fault("inverse", f"a callable, as {name!r} is said to act on it", None, "inverse=…, or leaving the argument out")
    if subject.arguments and subject.fresh is None:
        raise _fault("fresh", "a callable, as arguments= are listed", None,
                     f"fresh=lambda dtype=None, device=None, {next(iter(subject.arguments))}=…: Subject(…)")


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
