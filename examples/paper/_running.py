"""What the tasks share on the command line: backend, seed, folder, a progress bar, tables as JSON and Markdown, pictures."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.progress

from iresnet_backends import get, save
from iresnet_ref.arrays import size
from iresnet_ref.training.loop import State

FOLDER = Path(__file__).resolve().parents[2] / "reports" / "examples"
EXACT_UP_TO = 256
"""Numbers of an event up to which log-determinants are exact; larger models go to large-models/ and are audited without."""
Rows = Sequence[Mapping[str, Any]]
"""A table: one mapping of column names to numbers or words for each row."""


def parser(description: str, **numbers: float) -> argparse.ArgumentParser:
    """--backend, --dtype, --seed, --folder, --no-figure, and one option for each of `numbers`, with its default and type."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--backend", default="numpy", help="a name of iresnet-verify doctor: numpy, torch:cpu, jax, cupy:0, …")
    made.add_argument("--dtype", default="float64")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--folder", type=Path, default=FOLDER, help="where tables and pictures go")
    made.add_argument("--no-figure", action="store_true")
    for name, value in numbers.items():
        made.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=" ")
    return made


def like(options: argparse.Namespace) -> Any:
    """An array of the backend and dtype that were asked for."""
    return get(options.backend, dtype=options.dtype).asarray(np.zeros(1))


@contextlib.contextmanager
def progress(title: str, steps: int) -> Iterator[Callable[[State, float], None]]:
    """A callback for `fit` that moves a bar on stderr, with the loss beside it."""
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.TextColumn("loss {task.fields[loss]:.3f}"))
    with rich.progress.Progress(*columns, console=rich.console.Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=steps, loss=float("nan"))

        def callback(state: State, loss: float) -> None:
            bar.update(task, completed=state.step, loss=loss)

        yield callback


def keep(folder: Path, name: str, model: Any) -> None:
    """Save a trained flow or classifier where audited.py looks for it."""
    there = folder / ("models" if size(model.steps.in_shape) <= EXACT_UP_TO else "large-models")
    there.mkdir(parents=True, exist_ok=True)
    save(there / f"{name}.safetensors", model)


def markdown(rows: Rows) -> str:
    """The table in Markdown, numbers with four significant digits."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = (row.get(name, "–") for name in columns)
        lines.append("| " + " | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells) + " |")
    return "\n".join(lines)


def write(folder: Path, name: str, rows: Rows, **facts: Any) -> None:
    """Print the table, and write `name`.json ({"rows": …, **facts}) and `name`.md."""
    folder.mkdir(parents=True, exist_ok=True)
    print(markdown(rows), flush=True)
    content = json.dumps(_strict({"rows": list(rows), **facts}), indent=1, allow_nan=False)
    (folder / f"{name}.json").write_text(content + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(markdown(rows) + "\n", encoding="utf-8")


def _strict(value: Any) -> Any:
    """The value for strict JSON, which has no infinity: "inf", "nan"."""
    if isinstance(value, Mapping):
        return {k: _strict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def pyplot() -> Any:
    """matplotlib.pyplot, drawing into files."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt
