"""Checkpoints of a training: the whole state after every n-th step. Kill it anywhere: it continues bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from iresnet_backends.errors import FormatError
from iresnet_backends.saving import load, save
from iresnet_ref.training.loop import State


def checkpoint(path: str | Path, every: int = 1) -> Callable[[State, float], None]:
    """Return a callback for `iresnet_ref.training.fit` that saves the state to `path` after every `every`-th step.

    The file is replaced as a whole, so a run killed while it writes leaves the previous checkpoint.

    >>> import tempfile, pathlib, numpy as np, iresnet_ref as ir
    >>> from iresnet_ref.training import fit, maximum_likelihood, start
    >>> first = start(ir.Flow([ir.ResidualBlock(ir.mlp((2, 4, 2)))]))
    >>> loss = lambda flow, step: maximum_likelihood(flow, np.eye(2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "run.safetensors"
    ...     last = fit(resume(path, first), loss, 3, callback=checkpoint(path))
    ...     resume(path, first).step
    3
    """
    if every < 1:
        raise ValueError(f"checkpoint: expected every ≥ 1, got {every}")

    def callback(state: State, loss: float) -> None:
        del loss
        if state.step % every == 0:
            save(path, state)

    return callback


def resume(path: str | Path, fresh: State) -> State:
    """Return the state saved at `path`, on the backend and in the dtype of `fresh`; `fresh` where there is no file yet.

    Raises: FormatError for a file that is damaged or holds anything but a training of the same parameters and settings.
    """
    path = Path(path)
    if not path.exists():
        return fresh
    parameters = fresh.normalised.parameters()
    state: Any = load(path, like=next(iter(parameters.values())))
    if not isinstance(state, State):
        raise FormatError(f"resume {path}: expected the state of a training, got {type(state).__name__}; try load")
    saved, wanted = ({k: tuple(p.shape) for k, p in d.items()} for d in (state.normalised.parameters(), parameters))
    constants = (fresh.settings, fresh.normalised.lipschitz)
    if saved != wanted or (state.settings, state.normalised.lipschitz) != constants:
        raise FormatError(
            f"resume {path}: expected a training of the same parameters, Lipschitz constant and settings, got {state.settings} and "
            f"parameters that differ in {sorted(k for k in saved.keys() | wanted.keys() if saved.get(k) != wanted.get(k))}; "
            "try another path"
        )
    return state
