"""CuPy without a GPU: the real array over host memory, and the stand-in that the laws run on as "CuPy contract run (CPU)".

None of this shows that anything runs on a GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cupy
import numpy as np
import pytest
from cupy._core import NEWER
from places import CUPY_CONTRACT


def outside(code: str) -> str:
    """Run code in a process of its own, where `import cupy` gives the real package."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=CUPY_CONTRACT.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tests_run_on_the_stand_in() -> None:
    assert Path(cupy.__file__).parent == CUPY_CONTRACT / "cupy"


def test_the_manifest_is_that_of_the_installed_package() -> None:
    real = json.loads(outside("import runpy; runpy.run_path('cupy_manifest.py', run_name='__main__')"))
    ours = json.loads((CUPY_CONTRACT / "cupy/manifest.json").read_text("utf-8"))
    assert real == ours, "refresh the manifest: see cupy_manifest.py"


def test_the_stand_in_has_no_name_that_cupy_lacks() -> None:
    ours = json.loads((CUPY_CONTRACT / "cupy/manifest.json").read_text("utf-8"))
    extra = {n for n in dir(cupy) if not n.startswith("_")} - set(ours["cupy"])
    assert extra <= {"MANIFEST", "Any", "annotations", "build", "builtins", "counter", "current", "sys", "unwrap", "wrap",
                     "cuda", "fft", "linalg", "random", "newaxis", "ndarray"}
    methods = {n for n in dir(cupy.ndarray) if not n.startswith("_")} - set(ours["ndarray"])
    assert methods <= {"wait"}
    assert not NEWER & set(dir(cupy.ndarray))


# -- what it refuses: each of these would be an error, or a silent transfer, on a GPU
X = cupy.asarray([1.0, 2.0])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda: X + np.ones(2), "Unsupported type"), (lambda: np.ones(2) * X, "Unsupported type"),
        (lambda: np.asarray(X), "Implicit conversion"), (lambda: np.sum(X), "NumPy function sum"),
        (lambda: cupy.matmul(X, np.ones(2)), "Unsupported type"), (lambda: cupy.sum(X, where=True), "unexpected keyword"),
        (lambda: cupy.concatenate([X, np.ones(2)]), "Unsupported type"),
    ],
)
def test_host_arrays_and_foreign_keywords_are_refused(what: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        what()  # type: ignore[operator]


def test_devices_do_not_mix() -> None:
    with cupy.cuda.Device(1):
        other = cupy.asarray([1.0])
        with pytest.raises(ValueError, match="array device = 0 while current = 1"):
            X + 1.0
        assert (other + 1.0).device.id == 1
    with pytest.raises(ValueError, match="array device = 1 while current = 0"):
        X * other
    assert float(cupy.asarray(other)[0]) == 1.0, "a copy to the current device is asked for here"
    with pytest.raises(ValueError, match="invalid device ordinal"):
        cupy.cuda.Device(2)


@pytest.mark.parametrize(
    ("what", "syncs"),
    [
        (lambda: X + 1.0, 0), (lambda: X[0], 0), (lambda: cupy.sum(X), 0), (lambda: float(X[0]), 1), (X.get, 1),
        (lambda: bool(cupy.all(X > 0)), 1), (lambda: X[X > 0], 1), (lambda: cupy.nonzero(X), 1), (X.tolist, 1),
        (lambda: repr(X), 1), (lambda: cupy.asnumpy(X), 1), (lambda: X[cupy.asarray([0])], 0),
    ],
)
def test_every_wait_of_the_host_is_counted(what: object, syncs: int) -> None:
    before = cupy.counter.syncs
    what()  # type: ignore[operator]
    assert cupy.counter.syncs - before == syncs


def test_reductions_give_arrays() -> None:
    assert isinstance(cupy.sum(X), cupy.ndarray)
    assert isinstance(X[0], cupy.ndarray)


# -- the real cupy.ndarray, over host memory: dispatch, device and shapes; every kernel raises
GENUINE = """
import numpy as np, cupy, array_api_compat
from iresnet_ref import arrays
from iresnet_ref.jacobian import factors
host = np.arange(6.0)
place = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, 0)
x = cupy.ndarray((2, 3), dtype=cupy.float64, memptr=cupy.cuda.MemoryPointer(place, 0))
assert arrays.namespace(x).__name__ == "array_api_compat.cupy"
assert arrays.device(x).id == 0
assert array_api_compat.is_array_api_obj(x)
assert factors.Dense(x).in_shape == (3,) and factors.Dense(x).out_shape == (2,)
assert factors.Diagonal(x).take(slice(0, 1)).in_shape == (3,)
assert arrays.flatten_events(x[None], 2).shape == (1, 6)
assert arrays.expand_rows(x[:, 0], 2).shape == (2, 1, 1)
xp = arrays.namespace(x)
assert xp.matrix_transpose(x).shape == (3, 2) and xp.permute_dims(x, (1, 0)).shape == (3, 2)
assert xp.broadcast_to(x, (4, 2, 3)).shape == (4, 2, 3) and xp.finfo(x.dtype).eps == 2.0**-52
assert x.data.ptr == host.ctypes.data and xp.reshape(x, (6,)).data.ptr == host.ctypes.data
refused = 0
for kernel in (lambda: x + 1.0, lambda: xp.matmul(x, xp.matrix_transpose(x)), lambda: xp.sum(x), lambda: xp.zeros(1)):
    try:
        kernel()
    except (RuntimeError, ImportError, OSError):  # no driver, or no CUDA library
        refused += 1
assert refused == 4, refused
print("ok")
"""


def test_the_genuine_array_dispatches_and_keeps_shapes_over_host_memory() -> None:
    if json.loads(outside("import cupy, json; print(json.dumps(cupy.is_available()))")):
        pytest.skip("a GPU is here: host memory would be touched by its kernels")
    assert outside(GENUINE).strip() == "ok"
