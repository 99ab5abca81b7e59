"""Checkpoints of a training: the whole state after every n-th step. Kill it anywhere: it continues bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from iresnet_backends.errors import FormatError
from iresnet_backends.saving import PARTIAL, differences, load, save
from iresnet_ref.training.loop import State

PREVIOUS = ".previous"
"""Behind the name of a checkpoint: the one before it."""
WARM = ("normalised.warm", "normalised.estimates", "normalised.proof")
"""The places in a state of what its proofs and estimates begin with."""


def checkpoint(path: str | Path, every: int = 1) -> Callable[[State, float], None]:
    """Return a callback for `iresnet_ref.training.fit` that saves the state to `path` after every `every`-th step.

    The file is replaced as a whole: a run killed while it writes leaves the checkpoints that it had. The one before is kept
    at `path` with `.previous` behind its name. What a killed run left half written is removed
    here, so only one run may write to a path.
    Raises: ValueError for every < 1.

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
    path = Path(path)
    written = _sibling(path, ".next")
    for leftover in (written, _sibling(written, PARTIAL), _sibling(path, PARTIAL)):
        leftover.unlink(missing_ok=True)

    def callback(state: State, loss: float) -> None:
        del loss
        if state.step % every == 0:
            save(written, state.proved())
            if path.exists():
                path.replace(_sibling(path, PREVIOUS))
            written.replace(path)

    return callback


def _sibling(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def resume(path: str | Path, initial: State) -> State:
    """Return the state saved at `path`, on the backend and in the dtype of `initial`; `initial` where there is no file yet.

    A run killed between two renamings has left its previous checkpoint alone: that one is returned. Whether an ActNorm
    is initialised may differ from `initial`, and what proofs begin with; everything else that is no weight, moment or step has to
    be equal: types, shapes, activations, permutations, options, norms, Lipschitz constants, settings.
    Raises: FormatError for a file that is damaged, or holds anything but a training of the same model, naming the differences.

    >>> import pathlib, iresnet_ref as ir
    >>> first = ir.training.start(ir.Flow([ir.ResidualBlock(ir.mlp((2, 4, 2)))]))
    >>> resume(pathlib.Path("no such file"), first) is first
    True
    """
    path, previous = Path(path), _sibling(Path(path), PREVIOUS)
    if not path.exists() and not previous.exists():
        return initial
    path = path if path.exists() else previous
    try:
        state: Any = load(path, like=next(iter(initial.normalised.parameters().values())))
    except FormatError as error:
        raise FormatError(f"resume: {error}; the checkpoint before it is kept at {previous}") from error
    if not isinstance(state, State):
        raise FormatError(f"resume {path}: expected the state of a training, got {type(state).__name__}; try load")
    found = (d for d in differences(initial, state) if not d[0].startswith(WARM))
    others = [d for d in found if d[0].rpartition(".")[2] not in {"step", "initialised"}]
    if others:
        told = "; ".join(f"{where}: expected {wanted}, got {got}" for where, wanted, got in others[:5])
        raise FormatError(f"resume {path}: expected a training of the same model and settings, got {len(others)} differences: {told}; "
                          "try another path, or the model that was saved")
    return state
