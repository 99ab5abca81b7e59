"""A strict stand-in for CuPy on the CPU, for contract runs: never a proof that anything runs on a GPU.

Names and signatures are those of the real package (manifest.json). It does not reproduce flush-to-zero, TF32, the order of
reductions, cuSOLVER, or asynchronous errors.
"""

from __future__ import annotations

import builtins
import sys
from typing import Any

import numpy as _np

from cupy import cuda
from cupy._core import MANIFEST, build, counter, current, ndarray, unwrap, wrap

__version__ = MANIFEST["version"]
newaxis = None


def array(
    obj: Any, dtype: Any = None, copy: Any = True, order: str = "K", subok: bool = False, ndmin: int = 0, *,
    blocking: bool = False,
) -> Any:
    crosses = not isinstance(obj, ndarray)
    if isinstance(obj, ndarray):
        obj = obj._a  # from any device: a copy between devices is asked for
    else:
        counter.uploads += 1
        obj = unwrap(obj, index=True)  # CuPy does take host arrays, and nested lists of them, here
    made = _np.array(obj, dtype=dtype, copy=copy or None, ndmin=ndmin)
    counter.uploaded += made.nbytes if crosses else 0
    return wrap(made, current())


def asarray(a: Any, dtype: Any = None, order: Any = None, *, blocking: bool = False) -> Any:
    if isinstance(a, ndarray) and (dtype is None or a.dtype == dtype) and a.device == current():
        return a
    return array(a, dtype, copy=isinstance(a, ndarray))


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
    return a.get() if isinstance(a, ndarray) else _np.asarray(a)


def from_dlpack(a: Any, *, device: Any = None, copy: Any = None) -> Any:
    if not isinstance(a, ndarray):
        raise BufferError("stand-in: host memory is not device memory")
    return wrap(unwrap(a), current())


def get_array_module(*args: Any) -> Any:
    return sys.modules[__name__] if builtins.any(isinstance(a, ndarray) for a in args) else _np


def is_available() -> bool:
    return True


class _Pool:
    def used_bytes(self) -> int:
        return counter.used


def get_default_memory_pool() -> _Pool:
    return _Pool()


build("cupy", _np, globals())
__all__ = [n for n in (*MANIFEST["cupy"], "newaxis") if n in globals()]

from cupy import fft, linalg, random  # noqa: E402

__all__ += ["cuda", "fft", "linalg", "random"]
