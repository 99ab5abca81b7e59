"""The key of a result: everything it depended on, and what of that is different now.

A key has these parts, each a table of names and digests or versions:

- `files`: every source file outside site-packages and the standard library that the audit executed, and every file it opened
  (`workers.loaded_code` says what is not seen), by its path from the subject's file;
- `distributions`: version and digest of RECORD of every installed distribution of which a module was loaded;
- `package`: the digest of this distribution's own code, not its version;
- `versions`: Python; `machine`: system, architecture, the widest vector instructions NumPy uses, GPU;
- `variables`: environment variables that frameworks read.

The arguments of an audit are in its name. A result is used again while all parts are the same. RECORD says what was installed; a file
in site-packages edited by hand is not seen.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from iresnet_verify.campaign.unit import Unit
from iresnet_verify.workers.loaded_code import INSTALLED, OURS, LoadedCode, digest_of

Key = dict[str, dict[str, str]]

VARIABLES = ("CUBLAS_", "CUDA_", "CUPY_", "JAX_", "KMP_", "MKL_", "NPY_", "NUMPY_", "NVIDIA_", "OMP_", "OPENBLAS_", "PYTORCH_", "TORCH_",
             "XLA_", "PYTHONOPTIMIZE")
"""Environment variables whose names start like this."""
SUFFIXES = (".py", ".j2", ".css", ".js")


def key_of(unit: Unit, code: LoadedCode) -> Key:
    """The key of an audit that has just ended in a worker of this process."""
    folder = Path(unit.origin.file).parent
    return {
        "files": {_place(path, folder): digest for path, digest in code.files.items()},
        "distributions": {d: _distribution(d) for d in sorted({d for m in code.modules for d in _distributions_of().get(m, ())})},
        **surroundings(),
    }


def surroundings() -> Key:
    """The parts of a key that do not depend on the subject."""
    variables = {k: v for k, v in sorted(os.environ.items()) if k.startswith(VARIABLES) and not k.endswith("_NUM_THREADS")}
    return {
        "package": {"iresnet-ref": package_digest()},
        "versions": {"python": sys.version, "implementation": platform.python_implementation()},
        "machine": dict(_machine()),
        "variables": variables,
    }


def digest(key: Mapping[str, Any]) -> str:
    """One digest of a whole key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


class Present:
    """What keys would be now: files as they are at each question, all else as it was when this was made."""

    def __init__(self, parts: Iterable[str] = ("files", "distributions", "package", "versions", "machine", "variables")) -> None:
        self.parts = frozenset(parts)
        self.around = surroundings()
        self.distribution: Callable[[str], str] = cache(_distribution)

    def changes(self, key: Mapping[str, Mapping[str, str]], unit: Unit) -> list[str]:
        """What is different now from when a result with this key was found, a phrase each; nothing: it still holds."""
        folder = Path(unit.origin.file).parent
        now: dict[str, Mapping[str, str]] = {
            "files": {p: _digest_or_missing(folder / p) for p in key.get("files", {})},
            "distributions": {d: self.distribution(d) for d in key.get("distributions", {})},
            **self.around,
        }
        own = Path(unit.origin.file).name
        if own not in key.get("files", {}):
            return [f"{own} is not among the files of the result"]
        return [_said(part, name, old, new)
                for part, table in now.items() if part in self.parts
                for name in sorted({*table, *key.get(part, {})})
                if (old := key.get(part, {}).get(name)) != (new := table.get(name))]


def _said(part: str, name: str, old: str | None, new: str | None) -> str:
    if part == "files":
        return f"{name} {'is gone' if not new else 'changed'}"
    if part == "package":
        return "the code of iresnet-ref changed"
    if part == "distributions" and old and new and old.split()[0] == new.split()[0]:
        return f"{name} {old.split()[0]} was installed anew with other files"
    shown = (" ".join((v or "none").split()[:1]) if part == "distributions" else " ".join((v or "none").split()) for v in (old, new))
    return f"{name} changed from {' to '.join(shown)}"


def _place(path: str, folder: Path) -> str:
    """A path as seen from the subject's file, so that a project keeps its results when it moves."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive
        return path


def _digest_or_missing(path: Path) -> str:
    try:
        return _digest_at(str(path), _sign(os.stat(path)))  # noqa: PTH116  pathlib takes ten times as long
    except OSError:
        return ""


def _sign(found: os.stat_result) -> tuple[int, ...]:
    """A file with the same sign has the same content: inode, size, and times of change in nanoseconds."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache(maxsize=10_000)
def _digest_at(path: str, sign: tuple[int, ...]) -> str:
    """`sign`: with another one it is read again."""
    return digest_of(path)


def _distribution(name: str) -> str:
    """Version, and digest of RECORD where there is one; empty if it is not installed."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
    return f"{found.version} {hashlib.sha256((found.read_text('RECORD') or '').encode()).hexdigest()[:16]}"


@cache
def _distributions_of() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def package_digest() -> str:
    """SHA-256 over all files of this distribution's own code, as they are now.

    They are read again only if one of them has another inode, size, or time of change in nanoseconds: it is asked for thrice an audit.
    """
    signs = []
    for folder in OURS:
        for place, _, names in os.walk(folder):
            for name in (n for n in names if n.endswith(SUFFIXES)):
                path = os.path.join(place, name)  # noqa: PTH118  three hundred files: pathlib takes ten times as long
                signs.append((path[len(folder):], path, *_sign(os.stat(path))))  # noqa: PTH116
    return _digest_of_package(tuple(sorted(signs)))


def installed() -> tuple[object, ...]:
    """What changes with this package and with whatever is installed or removed beside it."""
    return package_digest(), *(_sign(os.stat(folder)) for folder in INSTALLED if os.path.isdir(folder))  # noqa: PTH112, PTH116  as above


@lru_cache(maxsize=2)
def _digest_of_package(signs: tuple[tuple[Any, ...], ...]) -> str:
    lines = (f"{Path(name).as_posix()} {digest_of(path)}\n" for name, path, *_ in signs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@cache
def _machine() -> Mapping[str, str]:
    features: Mapping[str, bool] = getattr(np._core._multiarray_umath, "__cpu_features__", {})  # type: ignore[attr-defined]  # NumPy has no public name for it
    wide = [n for n in ("AVX512_SPR", "AVX512_ICL", "AVX512_SKX", "AVX512F", "AVX2", "SVE", "ASIMD", "VSX", "SSE42") if features.get(n)]
    gpus = sorted(p.read_text("utf-8", "replace").split("Model:")[-1].split("\n")[0].strip()
                  for p in Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return {"system": platform.system(), "architecture": platform.machine(), "vectors": wide[0] if wide else "",
            "gpu": ", ".join(dict.fromkeys(gpus))}
