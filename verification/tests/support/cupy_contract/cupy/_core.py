"""The array of the stand-in: NumPy's arithmetic behind CuPy's rules.

Host arrays are refused, nothing converts itself to NumPy, every operand must live on the current device (where real CuPy
would warn and move it), results are arrays even where NumPy gives scalars, and every transfer that makes the host wait
for the device is counted in `counter.syncs`.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np

MANIFEST = json.loads((Path(__file__).parent / "manifest.json").read_text("utf-8"))
WAITS = {"nonzero", "flatnonzero", "argwhere", "unique", "array_equal", "allclose"}
"""Functions whose result needs the device's answer: its shape, or a Python bool."""
NEWER = {"byteswap", "mT", "mdspan"}
"""Attributes of the array that CuPy 13 lacks, the oldest that is supported; functions `array_api_compat` has for both."""


class Counter:
    """What crossed the bus: `syncs` device → host, the `largest` of them in entries, `uploads` host → device, and the bytes both ways.

    `used` bytes are alive, views counted with what they are of; `peak` the most of them since it was set.
    """

    syncs = 0
    largest = 0
    downloaded = 0
    uploads = 0
    uploaded = 0
    used = 0
    peak = 0
    alive: dict[int, int] = {}  # noqa: RUF012  arrays on each piece of memory


counter = Counter()


def wait(a: Any) -> Any:
    """Count one wait of the host for the device."""
    counter.syncs += 1
    counter.largest = max(counter.largest, getattr(a, "size", 0))
    counter.downloaded += getattr(a, "nbytes", 0)
    return a


class Device:
    """One of two fake GPUs; `with Device(1):` makes it the current one."""

    stack: list[Device] = []  # noqa: RUF012  the current devices of this process

    def __init__(self, device: Any = None) -> None:
        self.id = current().id if device is None else int(getattr(device, "id", device))
        if self.id not in (0, 1):
            raise ValueError(f"cudaErrorInvalidDevice: invalid device ordinal {self.id}")

    def __enter__(self) -> Device:
        Device.stack.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        Device.stack.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def synchronize(self) -> None:
        wait(None)


def current() -> Device:
    """Return the current device."""
    return Device.stack[-1] if Device.stack else FIRST


FIRST = Device.__new__(Device)
FIRST.id = 0


class ndarray:
    """cupy.ndarray as far as the manifest goes."""

    __slots__ = ("__weakref__", "_a", "device")
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 100.0

    def __init__(self, shape: Any, dtype: Any = float) -> None:
        _own(self, np.empty(shape, dtype), current())

    def __del__(self) -> None:
        if hasattr(self, "_a"):
            memory = _memory(self._a)
            counter.alive[id(memory)] -= 1
            if not counter.alive[id(memory)]:
                del counter.alive[id(memory)]
                counter.used -= memory.nbytes

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            return NotImplemented
        return call(ufunc.__name__, ufunc, args, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"NumPy function {func.__name__} called on a CuPy array")

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        return wait(self._a.copy())

    def __bool__(self) -> bool:
        return bool(wait(self._a))

    def __float__(self) -> float:
        return float(wait(self._a))

    def __int__(self) -> int:
        return int(wait(self._a))

    def __index__(self) -> int:
        return wait(self._a).__index__()

    def item(self, *i: Any) -> Any:
        return wait(self._a).item(*i)

    def tolist(self) -> Any:
        return wait(self._a).tolist()

    def __repr__(self) -> str:
        return repr(wait(self._a))

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        masks = key if isinstance(key, tuple) else (key,)
        if any(isinstance(k, ndarray) and k.dtype == bool for k in masks):
            wait(None)  # the shape depends on the data
        return call("getitem", lambda a, k: a[k], (self, key), {}, index=True)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        self._a[unwrap(key, index=True)] = unwrap(value)

    def __dlpack__(self, **kwargs: Any) -> Any:
        raise BufferError("stand-in: device memory that is none cannot leave")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self.device.id)  # kDLCUDA


def _method(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return call(name, lambda a, *r, **k: getattr(a, name)(*r, **k), (self, *args), kwargs)

    method.__name__ = name
    return method


def _property(name: str) -> property:
    def read(self: Any) -> Any:
        value = getattr(self._a, name)
        return wrap(value, self.device) if isinstance(value, np.ndarray | np.generic) else value

    return property(read)


def _complete() -> None:
    """Give the array the methods and properties that the real one has, and no other."""
    for name in MANIFEST["ndarray"]:
        theirs = getattr(np.ndarray, name, None)
        if name in ndarray.__dict__ or theirs is None or name in NEWER or name.startswith("__array") or name in dir(object):
            continue
        setattr(ndarray, name, _method(name) if callable(theirs) else _property(name))
    for name in ("lt", "le", "eq", "ne", "gt", "ge"):
        setattr(ndarray, f"__{name}__", _method(f"__{name}__"))


def unwrap(x: Any, index: bool = False) -> Any:
    """Return the NumPy value inside x; host arrays are refused as CuPy refuses them, except as an index."""
    if isinstance(x, ndarray):
        if x.device != current():
            raise ValueError(
                f"Array device must be same as the current device: array device = {x.device.id} while current = {current().id}"
            )
        return x._a
    if isinstance(x, np.ndarray) and not index:
        raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, tuple | list):
        return type(x)([unwrap(v, index) for v in x])
    if isinstance(x, slice):
        return slice(*(unwrap(v, True) for v in (x.start, x.stop, x.step)))
    return x


def wrap(x: Any, device: Device) -> Any:
    """Return x with every NumPy array or scalar in it as an array of the stand-in."""
    if isinstance(x, np.ndarray | np.generic):
        return _own(ndarray.__new__(ndarray), np.asarray(x), device)
    if isinstance(x, tuple | list):
        values = [wrap(v, device) for v in x]
        return type(x)(values) if type(x) in (tuple, list) else type(x)(*values)  # a namedtuple
    return x


def _own(array: ndarray, a: Any, device: Device) -> ndarray:
    array._a, array.device = a, device
    memory = _memory(a)
    if id(memory) not in counter.alive:
        counter.alive[id(memory)] = 0
        counter.used += memory.nbytes
        counter.peak = max(counter.peak, counter.used)
    counter.alive[id(memory)] += 1
    return array


def _memory(a: Any) -> Any:
    """Return the array that owns the memory of a."""
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a


def call(name: str, f: Any, args: Any, kwargs: Any, index: bool = False) -> Any:
    """Return f on the values, as arrays of the current device."""
    if name in WAITS:
        wait(None)
    return wrap(f(*unwrap(args, index), **{k: unwrap(v, index) for k, v in kwargs.items()}), current())


def build(section: str, source: Any, namespace: dict[str, Any]) -> None:
    """Fill the namespace with what CuPy has in `section`, computed by NumPy's `source`, under CuPy's own signatures."""
    for name, (kind, parameters) in MANIFEST[section].items():
        target = getattr(source, name, None)
        if name in namespace or target is None:
            continue
        if kind not in ("function", "ufunc") or inspect.isclass(target):
            namespace[name] = target
        else:
            namespace[name] = _function(name, target, parameters)
    namespace["__all__"] = [n for n in MANIFEST[section] if n in namespace]


def _function(name: str, target: Any, parameters: Any) -> Any:
    signature = None
    if parameters is not None:
        empty = inspect.Parameter.empty
        kinds = [(n, inspect._ParameterKind(k), None if has else empty) for n, k, has in parameters]
        signature = inspect.Signature([inspect.Parameter(n, k, default=d) for n, k, d in kinds])

    def function(*args: Any, **kwargs: Any) -> Any:
        if signature is not None:
            signature.bind(*args, **kwargs)
        return call(name, target, args, kwargs)

    function.__name__ = function.__qualname__ = name
    if signature is not None:
        function.__signature__ = signature  # type: ignore[attr-defined]
    return function


_complete()
