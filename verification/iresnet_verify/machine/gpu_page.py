"""One page about the GPUs of this machine: parity against 50 digits, times, memory; and the same as JSON.

A time is the median of `REPEATS` calls on a batch of `BATCH` rows, after one call to warm up, with the device synchronised
before the clock is read.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import iresnet_ref as ir
from iresnet_backends import Backend, available, get
from iresnet_backends.errors import BackendUnavailableError
from iresnet_verify.machine import backend_parity
from iresnet_verify.machine.backend_parity import QUANTITIES, Parity

PREFIXES = ("cupy:", "torch:cuda", "torch:mps", "jax:gpu")
PACKAGES = ("iresnet-ref", "numpy", "torch", "cupy-cuda12x", "cupy-cuda13x", "jax", "array-api-compat")
SIZES, BATCH, REPEATS = (64, 256, 256, 64), 4096, 10
WORK: dict[str, Callable[[ir.ResidualBlock, Any], Any]] = {
    "forward": lambda F, x: F(x, check=False),
    "series logdet": lambda F, x: ir.logdet(F, x, method=ir.Series(8), check=False),
    "roulette logdet": lambda F, x: ir.logdet(F, x, method="roulette", check=False),
    "exact logdet": lambda F, x: ir.logdet(F, x[:256, ...], method="exact", check=False),
    "inverse": lambda F, x: ir.invert(F, x, rtol=1e-5, check=False),
}
"""What is timed; the determinant on 256 rows."""


def examine(console: Console, path: Path | None = None, names: Sequence[str] | None = None) -> bool | None:
    """Print the page and write the JSON; return whether every bound was kept, None where there is no GPU."""
    names = [n for n in available() if n.startswith(PREFIXES)] if names is None else names
    if not names:
        console.print("No GPU: nothing has been run.")
        for name in ("cupy", "torch:cuda:0", "jax:gpu"):
            try:
                get(name, "float32")
            except BackendUnavailableError as reason:
                console.print(Text(f"  {reason}"))
        return None
    parity = backend_parity.measure(names)
    times = [time_of(get(name, dtype), dtype) for name in names for dtype in ("float32",)]
    console.print(f"{platform.platform()}, Python {platform.python_version()}")
    console.print(parity_table(parity))
    console.print(_times(times))
    if path is not None:
        record = {"versions": _versions(), "platform": platform.platform(), "parity": [p.record() for p in parity],
                  "times": times}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1), encoding="utf-8")
        console.print(f"written: {path}")
    return all(p.kept for p in parity)


def time_of(b: Backend, dtype: str) -> dict[str, Any]:
    """Return the median milliseconds of each piece of work, and the memory in use after it."""
    found: dict[str, Any] = {"backend": b.name, "dtype": dtype, "batch": BATCH, "sizes": list(SIZES)}
    with b.active():
        F = ir.ResidualBlock(ir.mlp(SIZES, activation="elu", lipschitz=0.9, like=b.asarray(np.zeros(1))))
        x = b.asarray(np.random.default_rng(0).standard_normal((BATCH, SIZES[0])))
        for name, work in WORK.items():
            laps = []
            for _ in range(REPEATS + 1):
                b.synchronise()
                start = time.perf_counter()
                work(F, x)
                b.synchronise()
                laps.append(1e3 * (time.perf_counter() - start))
            found[name] = statistics.median(laps[1:])
        found["bytes in use"] = b.memory()
    return found


def parity_table(found: Sequence[Parity]) -> Table:
    """Return backend × quantity, each error in units of its rounding bound."""
    table = _table("Error against 50 digits in units of its bound (kept: ≤ 1; draws: 0 or inf)", QUANTITIES)
    for key in dict.fromkeys((p.backend, p.dtype) for p in found):
        cells = {p.quantity: p for p in found if (p.backend, p.dtype) == key}
        marked = (f"[{'green' if cells[q].kept else 'red'}]{cells[q].error:.1g}[/]" for q in QUANTITIES)
        table.add_row(key[0], key[1].replace("float", "f"), *marked)
    return table


def _times(times: Sequence[dict[str, Any]]) -> Table:
    title = f"Milliseconds for {BATCH} rows of an MLP {'-'.join(map(str, SIZES))}"
    table = _table(title, (*WORK, "MB in use"))
    for row in times:
        used = "–" if row["bytes in use"] is None else f"{row['bytes in use'] / 1e6:.0f}"
        table.add_row(row["backend"], row["dtype"].replace("float", "f"), *(f"{row[name]:.3g}" for name in WORK), used)
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    """A table whose numbers stay whole in 80 columns: its headers stand in two lines, long names of backends are folded."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, header_style="bold", title=title, title_justify="left")
    table.add_column("backend", overflow="fold", min_width=10)
    table.add_column("dtype", no_wrap=True)
    for name in columns:
        table.add_column(name.replace(" ", "\n"), no_wrap=True)
    return table


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
