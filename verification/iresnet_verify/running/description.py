"""The head of a report: the subject and the machine as plain data, without absolute paths."""

from __future__ import annotations

import inspect
import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from iresnet_verify.check.registry import READABLE
from iresnet_verify.check.result import CheckResult
from iresnet_verify.subject.calls import LOG_DETS
from iresnet_verify.subject.subject import Subject

PROVIDED = ("inverse", *LOG_DETS, "residual", "standard_error", "log_prob", "base_log_prob", "sample", "module", "fresh", "refresh",
         "linear_maps", "randomness")


def describe_subject(subject: Subject, results: Iterable[CheckResult] = ()) -> dict[str, Any]:
    """Name, shape, where it lives, what it claims, and the conventions that `hygiene.readable` found."""
    claim = subject.log_det_is
    description: dict[str, Any] = {
        "name": subject.name, "event_shape": list(subject.event_shape), "framework": subject.framework,
        "dtype": subject.dtype, "device": subject.device, "modes": list(subject.modes),
        "claims": {
            "lipschitz": subject.lipschitz, "lipschitz_holds": subject.lipschitz_holds,
            "log_det_is": claim if claim is None or isinstance(claim, str | int | float) else dict(claim),
            "inverse_tolerance": subject.inverse_tolerance, "accuracy": subject.accuracy,
        },
        "has_log_det": subject.log_det is not None,
        "gives": [n for n in PROVIDED if getattr(subject, n) is not None],
        "origin": origin(subject), "conventions": {},
    }
    return add_conventions(description, results)


def add_conventions(description: dict[str, Any], results: Iterable[CheckResult]) -> dict[str, Any]:
    """Add the conventions that `hygiene.readable` found, where it is among the results: packings, log-det shapes."""
    read = next((dict(r.evidence) for r in results if r.id == READABLE), {})
    has_log_det = description["has_log_det"] or "forward's log-det" in read
    conventions = {k: v for k, v in read.items() if isinstance(v, str)}
    return {**description, "has_log_det": has_log_det, "conventions": conventions}


def origin(subject: Subject) -> str:
    """Return the qualified name and `file.py:line` of the module's class, or of forward."""
    behind = subject.module if subject.module is not None else subject.forward
    kind = behind if inspect.isroutine(behind) else type(behind)
    name = f"{getattr(kind, '__module__', '?')}.{getattr(kind, '__qualname__', '?')}"
    try:
        return f"{name} ({Path(inspect.getsourcefile(kind) or '').name}:{inspect.getsourcelines(kind)[1]})"
    except (TypeError, OSError):
        return name


def environment(subject: Subject) -> dict[str, str]:
    """Versions and machine, as far as they may change a result."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()}
    framework = subject.framework.split(":")[0]
    for name in ("iresnet-ref", "numpy", "torch", "jax", "array-api-strict", "cupy"):
        if name in ("iresnet-ref", "numpy", framework) or name.replace("-", "_") in sys.modules:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
    found["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "unset")
    found["cpu_count"] = str(os.cpu_count())
    if "torch" in sys.modules:
        found["torch_threads"] = str(sys.modules["torch"].get_num_threads())
    return found
