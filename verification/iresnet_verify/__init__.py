"""Audit any invertible network: `audit(Subject(...))` reports, with a known error rate, which claims do not hold."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iresnet_verify.api import Report, audit
    from iresnet_verify.check.result import CheckResult
    from iresnet_verify.pytest_plugin import parametrize_with_checks
    from iresnet_verify.subject.subject import Subject

__all__ = ["CheckResult", "Report", "Subject", "audit", "parametrize_with_checks"]

_HOMES = {
    "CheckResult": "check.result", "Report": "api", "Subject": "subject.subject", "audit": "api",
    "parametrize_with_checks": "pytest_plugin",
}


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562): pytest loads the plugin in every run and must not pay for the suite."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ImportError as error:
        if (error.name or "").startswith(("iresnet_verify", "iresnet_ref")):
            raise
        raise ImportError(f"{__name__}.{name} needs {error.name}; try: pip install \"iresnet-ref[verify]\"",
                          name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
