"""What each backend can do: the one table behind skips, error messages, `iresnet-verify doctor` and docs/backends.md.

A row is a family, or one of its devices where that differs. `gaps` says what is missing and why, for the whole row or for
one dtype ("exact logdet/bfloat16"); what is not named works, and a test exercises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FEATURES: Mapping[str, str] = {
    "forward": "F(x) = x + g(x)",
    "certificate": "a proved bound on Lip(g)",
    "spectral norm": "‖W‖₂ by singular values",
    "series logdet": "the truncated series",
    "roulette logdet": "the unbiased estimate",
    "exact logdet": "the determinant",
    "inverse": "the inverse with its radius",
    "sorting": "GroupSort, MaxMin and FullSort as activations",
    "compile": "forward, log-determinants and their gradients under jax.jit or torch.compile",
    "vmap": "forward mapped over a stack of parameters",
    "share": "memory shared through DLPack",
    "generator": "a native random generator, on request",
    "memory": "bytes in use on the device",
}

DTYPES = ("float64", "float32", "bfloat16", "float16")
"""Every dtype that some backend has."""

_SHORT = "8 or 11 bits do not carry it: the remedy is float32"
_FEW_BITS = {f"{what}/{dtype}": _SHORT for what in ("roulette logdet", "exact logdet", "inverse") for dtype in DTYPES[2:]}
_FEW_BITS |= {f"spectral norm/{dtype}": "no singular values below float32" for dtype in DTYPES[2:]}
_EAGER = {"compile": "it has no compiler", "vmap": "it has no vmap"}
_HOST = {"memory": "host memory belongs to the process"}


@dataclass(frozen=True)
class Row:
    """One line of the table; `extra` is what pip installs it with, `ran` on what it has run."""

    module: str
    extra: str | None
    dtypes: tuple[str, ...]
    devices: str
    ran: str
    gaps: Mapping[str, str] = field(default_factory=dict)

    def gap(self, feature: str, dtype: str) -> str | None:
        """Return why `feature` is missing at `dtype`, None where it is there."""
        if dtype not in self.dtypes:
            return f"it has {', '.join(self.dtypes)}"
        return self.gaps.get(feature) or self.gaps.get(f"{feature}/{dtype}")


_TWO, _ONE = DTYPES[:2], DTYPES[1:2]
_NEVER = "never: no such hardware yet"
_CPU = "CPU"
_BARE = {**_EAGER, **_HOST, "generator": "it has none of its own"}

TABLE: Mapping[str, Row] = {
    "numpy": Row("numpy", None, _TWO, "cpu", _CPU, {**_EAGER, **_HOST}),
    "torch": Row("torch", "torch", DTYPES, "cpu", _CPU, {**_HOST, **_FEW_BITS}),
    "torch:cuda": Row("torch", "torch", DTYPES, "cuda:0 …", _NEVER, _FEW_BITS),
    "torch:mps": Row("torch", "torch", DTYPES[1:], "mps", _NEVER, _FEW_BITS),
    "jax": Row("jax", "jax", DTYPES, "cpu", _CPU, {**_HOST, **_FEW_BITS}),
    "jax:gpu": Row("jax", "jax", DTYPES, "gpu:0 …", _NEVER, _FEW_BITS),
    "cupy": Row("cupy", "cupy12x", _TWO, "0 …", "never on a GPU: contract run on the CPU", _EAGER),
    "array-api-strict": Row("array_api_strict", "strict", _TWO, "cpu, device1, device2", _CPU, _BARE),
    "array-api-strict:no_float64": Row("array_api_strict", "strict", _ONE, "no_float64", _CPU, _BARE),
    "array-api-strict:no_x64": Row(
        "array_api_strict", "strict", _ONE, "no_x64", _CPU,
        {**_BARE, "sorting": "its argsort gives int64, which the device does not have"},
    ),
    "precision": Row(
        "precision", "precision", DTYPES[:1], "50, any number of digits", _CPU,
        {**_BARE, "share": "its numbers are Python objects"},
    ),
}

DEFAULT_DEVICE = {"precision": "50", "cupy": "0"}
FAMILIES = tuple(dict.fromkeys(name.partition(":")[0] for name in TABLE))
"""The backends there are, working here or not."""


def row(name: str) -> Row:
    """Return the row of a backend name, the most special one: "torch:cuda:1" has that of "torch:cuda".

    >>> row("torch:cuda:1").devices
    'cuda:0 …'
    """
    parts = name.split(":")
    return next(TABLE[key] for n in range(len(parts), 0, -1) if (key := ":".join(parts[:n])) in TABLE)


def gap(name: str, feature: str, dtype: str = "float64") -> str | None:
    """Return why the backend lacks a feature (a key of `FEATURES`) at a dtype; None where it has it.

    >>> gap("numpy", "compile")
    'it has no compiler'
    """
    if feature not in FEATURES:
        raise KeyError(f"capability: expected one of {', '.join(FEATURES)}, got {feature!r}")
    return row(name).gap(feature, dtype)


def markdown() -> str:
    """Return the table as Markdown: a check mark, the dtypes that have the feature, or the reason why it is missing."""
    lines = ["| backend | devices | install | dtypes | has run on |", "|---|---|---|---|---|"]
    for name, line in TABLE.items():
        install = f"`iresnet-ref[{line.extra}]`" if line.extra else "–"
        lines.append(f"| `{name}` | {line.devices} | {install} | {', '.join(line.dtypes)} | {line.ran} |")
    lines += ["", "| | " + " | ".join(f"`{name}`" for name in TABLE) + " |", "|---" * (len(TABLE) + 1) + "|"]
    for feature, meaning in FEATURES.items():
        lines.append(f"| **{feature}**: {meaning} | " + " | ".join(_cell(r, feature) for r in TABLE.values()) + " |")
    return "\n".join(lines) + "\n"


def _cell(line: Row, feature: str) -> str:
    having = [dtype for dtype in line.dtypes if line.gap(feature, dtype) is None]
    if having == list(line.dtypes):
        return "✓"
    return ", ".join(having) if having else f"– {line.gap(feature, line.dtypes[0])}"
