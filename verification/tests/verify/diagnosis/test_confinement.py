"""Code that is changed to find a slip can neither run on, take all memory, write files, nor leave the subject changed."""

from __future__ import annotations

import contextlib
import functools
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from iresnet_verify import Subject, audit
from iresnet_verify.diagnosis.trials.code_changes import changes_of
from iresnet_verify.diagnosis.trials.confinement import StoppedError, can_be_stopped, confined, held_by, kept, limited

VALUE = ("logdet.matches-determinant",)
D = torch.float64
Floats = NDArray[np.float64]


def test_a_power_of_integers_is_stopped() -> None:
    before = signal.getsignal(signal.SIGPROF)
    with pytest.raises(StoppedError), limited(0.02):
        assert 7 ** int("2654435761")
    assert signal.getsignal(signal.SIGPROF) == before
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def growing(n: int = 40) -> int:
    total = 3
    for _ in range(n):
        total = total - 1 + total
    return total


# Squared forty times, 3 would have 10¹² digits.
def test_integers_that_a_put_in_square_lets_explode_are_stopped() -> None:
    squares = [c for c in changes_of(growing) if c.words.startswith("( )²")]  # type: ignore[arg-type]  # a function
    stopped = 0
    for change in squares:
        began = time.process_time()
        try:
            with contextlib.suppress(TypeError), change.made(), limited(0.02):  # a range has no square
                growing()
        except StoppedError:
            stopped += 1
        assert time.process_time() - began < 0.5
    assert stopped >= 1


# Traces end with the first error that they raise; a timer goes on.
def test_a_loop_that_catches_everything_is_stopped() -> None:
    def stubborn() -> None:
        k = 0
        while k < 10:
            try:
                k = len([k, k]) - 2
            except:  # noqa: E722
                continue

    with pytest.raises(StoppedError), limited(0.02):
        stubborn()


def test_memory_is_bounded_and_given_back() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with confined():
        if Path("/proc/self/statm").exists():
            with pytest.raises(RuntimeError):
                torch.empty(1 << 40, dtype=D)
            with pytest.raises(MemoryError):
                bytearray(3 << 30)
        assert torch.ones(1000).sum() == 1000
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_nothing_is_written(tmp_path: Path) -> None:
    there = tmp_path / "a"
    there.write_text("1")
    with confined():
        for act in (lambda: (tmp_path / "b").write_text("2"), there.unlink, lambda: there.open("r+"), (tmp_path / "c").mkdir):
            with pytest.raises(PermissionError, match="changed code is tried"):
                act()
        assert there.read_text() == "1"
        other = threading.Thread(target=lambda: (tmp_path / "d").write_text("3"))
        other.start()
        other.join()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "d"]


def test_in_other_threads_and_under_traces_nothing_can_be_stopped() -> None:
    said: list[bool] = [can_be_stopped()]
    other = threading.Thread(target=lambda: said.append(can_be_stopped()))
    other.start()
    other.join()
    trace = sys.gettrace()
    sys.setprofile(lambda *_: None)
    said.append(can_be_stopped())
    sys.setprofile(None)
    assert said == [trace is None, False, False]


TABLE = np.arange(3.0)


def test_the_arrays_that_callables_hold_are_found() -> None:
    a, kept, t = np.ones(2), {"k": [np.zeros(1)]}, torch.ones(4)

    class Holds:
        def __init__(self) -> None:
            self.held = (t, kept)

        def forward(self, x: Floats, scale: Floats) -> Floats:
            return x * scale * TABLE * a[0]

    forward = functools.partial(Holds().forward, scale=np.full(5, 2.0))
    found = held_by(Subject(name="holds", event_shape=(3,), forward=forward, framework="numpy")).arrays
    assert sorted(tuple(x.shape) for x in found) == [(1,), (2,), (3,), (4,), (5,)]


class Weights:
    """y = x + u·sin(w·x)/2 in NumPy; the wrong log-det scales a copy of w in place."""

    def __init__(self) -> None:
        w, u = np.random.default_rng(1).standard_normal((2, 3))
        self.w, self.u = w / np.linalg.norm(w), u / np.linalg.norm(u)

    def forward(self, x: Floats) -> Floats:
        return np.asarray(x + 0.5 * np.sin(x @ self.w)[:, None] * self.u)

    def log_det(self, x: Floats) -> Floats:
        w = self.w + 0.0
        w *= 0.9
        return np.asarray(np.log(1 + 0.3 * np.tanh(x @ w) * (self.w @ self.u)))


# Without `+ 0.0` the copy is the weights themselves.
@pytest.mark.thorough
def test_weights_of_a_numpy_network_are_kept() -> None:
    net = Weights()
    before = net.w.copy()
    audit(Subject(name="weights", event_shape=(3,), forward=net.forward, log_det=net.log_det, framework="numpy"), 0, "quick", select=VALUE)
    np.testing.assert_array_equal(net.w, before)


class Dumps(nn.Module):
    """y = x + u·sin(w·x)/2; numbers of a log-det that are not finite are kept in a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        torch.manual_seed(1)
        w, u = torch.randn(2, 3, dtype=D)
        self.w, self.u, self.path = nn.Parameter(w / w.norm()), nn.Parameter(u / u.norm()), path

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * torch.sin(x @ self.w)[:, None] * self.u

    def _kept(self, values: Tensor) -> Tensor:
        if not torch.isfinite(values).all():
            with self.path.open("a") as file:
                print(values, file=file)
        return values

    def log_det(self, x: Tensor) -> Tensor:
        return self._kept(torch.log(1 + 0.3 * torch.tanh(x @ self.u) * (self.w @ self.u)))


@pytest.mark.thorough
def test_no_dump_is_written(tmp_path: Path) -> None:
    net = Dumps(tmp_path / "dump")
    audit(Subject(name="dumps", event_shape=(3,), forward=net, log_det=net.log_det, module=net, modes=("eval",)), 0, "quick", select=VALUE)
    assert not (tmp_path / "dump").exists()


class Counts:
    """A NumPy network that counts its calls in a list, a dict, an attribute and a variable of a function around it."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.cache: dict[str, int] = {"calls": 0}
        self.number = 0
        around = 0

        def count() -> int:
            nonlocal around
            around += 1
            return around

        self.count = count

    def forward(self, x: Floats) -> Floats:
        self.number += 1
        self.calls.append(self.count())
        self.cache["calls"] += 1
        self.cache[f"call {self.number}"] = self.number
        return 2.0 * x


def test_what_a_call_writes_down_is_put_back() -> None:
    net = Counts()
    held = held_by(Subject(name="counts", event_shape=(3,), forward=net.forward, framework="numpy"))
    calls, cache = net.calls, net.cache
    with kept(held):
        net.forward(np.ones(3))
        net.calls = [7]
        assert net.number == 1
    assert (net.number, net.calls, net.cache, net.count()) == (0, [], {"calls": 0}, 1)
    assert net.calls is calls
    assert net.cache is cache
