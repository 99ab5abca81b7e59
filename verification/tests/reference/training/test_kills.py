"""A training that is killed at any moment continues bit for bit: thirty kills by SIGKILL, many of them inside a checkpoint."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_training import same

from iresnet_backends import load, resume
from iresnet_ref.training.loop import fit

pytest.importorskip("safetensors")
KILLS, STEPS = 30, 1200

RUN = '''
import sys
import numpy as np, iresnet_ref as ir
from iresnet_backends import checkpoint, resume
from iresnet_ref.training import Settings, fit, maximum_likelihood, minibatch, start

WIDE = 20_000  # a state of some megabytes, whose writing takes longer than the step
DATA = np.random.default_rng(3).standard_normal((16, WIDE))
def loss(model, step):
    return maximum_likelihood(model, DATA[minibatch(16, 4, step)], step=step)
def fresh():
    flow = ir.Flow([ir.bijections.ActNorm.uninitialised((WIDE,))]).initialise(DATA)
    return start(flow, settings=Settings(average=0.9))
if __name__ == "__main__":
    path, steps = sys.argv[1], int(sys.argv[2])
    state = resume(path, fresh())
    keep = checkpoint(path)
    print(state.step, flush=True)
    fit(state, loss, steps - state.step, callback=keep)
'''


@pytest.mark.thorough
def test_thirty_kills_while_checkpoints_are_written(tmp_path: Path) -> None:
    script, folder = tmp_path / "killed_run.py", tmp_path / "run"
    script.write_text(RUN)
    folder.mkdir()
    path, rng = folder / "state", random.Random(0)
    command = [sys.executable, str(script), str(path), str(STEPS)]
    reached, half_written = 0, 0
    for kill in range(KILLS):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            begun = int(process.stdout.readline())
            assert begun >= reached
            reached = begun
            time.sleep(rng.uniform(0.0, 0.15))
            if kill % 2:  # every other kill waits until a file is being written
                while process.poll() is None and not (folder / "state.next.partial").exists():
                    pass
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        half_written += any(folder.glob("state.next*"))
    assert 0 < reached < STEPS
    print(f"{half_written} of {KILLS} kills left a file half written; the last run began at step {reached} of {STEPS}")
    assert half_written >= 3  # else hardly a kill hit a checkpoint
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert sorted(folder.iterdir()) == [path, folder / "state.previous"]
    space: dict[str, object] = {"__name__": "killed_run"}
    exec(compile(RUN, str(script), "exec"), space)
    first = space["fresh"]()  # type: ignore[operator]
    whole = fit(first, space["loss"], STEPS)  # type: ignore[arg-type]
    same(resume(path, first), whole)
    assert load(folder / "state.previous").step == STEPS - 1
