"""Saving and loading with safetensors: arrays as tensors, everything else as JSON in the file's metadata. No pickle.

What is saved is the value, field by field: structure, event shapes, names of activations, stated Lipschitz constants, whether
an ActNorm is initialised. Certificates are not saved: they are proved anew from the weights that were loaded. Loading builds
only the types named in `TYPES`, through their validating constructors; a file can state what it likes, but run nothing. So a
length distribution of the roulette, which is a function, is refused: no file may bring another one back in its place.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import iresnet_ref as ir
from iresnet_backends.backend import Backend, HostArray
from iresnet_backends.errors import BackendUnavailableError, FormatError
from iresnet_ref import bijections, densities, layers, rounding, training
from iresnet_ref.arrays import from_host, namespace, to_host
from iresnet_ref.branches.estimated import Estimate
from iresnet_ref.errors import DTypeError, IResNetError
from iresnet_ref.layers.activations import ACTIVATIONS, FAMILIES, Activation
from iresnet_ref.normalisation.raw_proof import Warm
from iresnet_ref.roulette import LengthDistribution

FORMAT = "iresnet-ref"
PARTIAL = ".partial"
"""Behind the name of a file: what a killed `save` has left of it."""
VERSION = 2
TYPES: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        bijections.ActNorm, bijections.Composition, bijections.ContextShift, bijections.FactorOut, bijections.Logit,
        bijections.PLULinear, bijections.Permutation, bijections.Residual, bijections.Squeeze, bijections.ZeroPad,
        densities.DiagonalGaussian, densities.GaussianMixture, densities.StandardGaussian,
        ir.Anderson, ir.Arnoldi, ir.Auto, ir.Banach, ir.Branch, ir.Exact, ir.Flow, ir.Hidden, ir.Newton, ir.NormalisedBranch,
        ir.Options, ir.Probes, ir.ResidualBlock, ir.Roulette, ir.SandwichBranch, ir.Series,
        layers.Affine, layers.CLipSwish, layers.Concatenation, layers.Conv, layers.DiagonalAffine, layers.GroupSort, layers.LipSwish,
        layers.Parallel, layers.Pointwise, layers.Rearrangement,
        training.Classifier, training.Moments, training.NormalisedModel, training.Settings, training.State, Estimate, Warm,
    )
}  # fmt: skip
"""What can be saved; every field of these is an array, a number, a name, one of these, or a tuple or dictionary of such."""


def save(path: str | Path, subject: Any) -> None:
    """Write a flow, a residual block, a branch, a bijection or the state of a training to `path`, bit for bit.

    The file is replaced as a whole: it never holds half of a subject. Raises: DTypeError for arrays of more than 53 bits
    (their values would be rounded) and for objects that are not in `TYPES`, BackendUnavailableError without safetensors.

    >>> import tempfile, pathlib, numpy as np, iresnet_ref as ir
    >>> flow = ir.Flow([ir.bijections.ActNorm.uninitialised((2,)), ir.ResidualBlock(ir.mlp((2, 8, 2)))]).initialise(np.eye(2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(pathlib.Path(folder) / "flow.safetensors", flow)
    ...     again = load(pathlib.Path(folder) / "flow.safetensors")
    >>> bool((again.log_prob(np.eye(2)).value == flow.log_prob(np.eye(2)).value).all())
    True
    """
    safetensors = _safetensors()
    arrays: dict[str, HostArray] = {}
    structure = _encoded(subject, "", arrays)
    header = {"format": FORMAT, "version": str(VERSION), "structure": json.dumps(structure, ensure_ascii=False)}
    path = Path(path)
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:  # its own `save_file` would leave files of unknown names behind a kill
            file.write(safetensors.save(arrays, metadata=header))
            file.flush()
            os.fsync(file.fileno())  # a name never points to data that a power cut can take away
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | Path, *, like: Any = None, backend: Backend | str | None = None) -> Any:
    """Return what was saved: as NumPy arrays of the stored dtype, or on a backend.

    `backend` is a name ("torch:cuda:0": the stored dtype is kept) or a Backend (its dtype is taken); `like` an array that gives
    namespace, dtype and device. Values are exact unless a narrower dtype is asked for.
    Raises: FormatError for a file that is truncated, of another origin, of a newer version, or does not describe a valid
    subject; FileNotFoundError; BackendUnavailableError.

    >>> import tempfile, pathlib, torch, iresnet_ref as ir
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(pathlib.Path(folder) / "g.safetensors", ir.mlp((2, 8, 2)))
    ...     load(pathlib.Path(folder) / "g.safetensors", like=torch.zeros(1)).like.dtype
    torch.float32
    """
    if like is not None and backend is not None:
        raise ValueError("load: expected like= or backend=, got both; a Backend has a dtype and a device of its own")
    structure, arrays = _read(Path(path))
    convert = _converter(arrays, like, backend)
    used: set[str] = set()
    try:
        subject = _decoded(structure, arrays, convert, used)
    except FormatError as error:
        raise FormatError(f"load {path}: {error}") from None
    except (IResNetError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise FormatError(f"load {path}: expected a file that describes a valid subject, got: {error}") from error
    if used != arrays.keys():
        raise FormatError(f"load {path}: expected every tensor to be used, got unused {sorted(arrays.keys() - used)}")
    return subject


def differences(wanted: Any, got: Any) -> list[tuple[str, str, str]]:
    """Return (place, what is wanted, what came) wherever two subjects differ, in anything but the values and dtypes of their arrays.

    >>> differences(ir.bijections.Permutation((2,), (0, 1)), ir.bijections.Permutation((2,), (1, 0)))
    [('order.0', '0', '1'), ('order.1', '1', '0')]
    """
    one, other = described(wanted), described(got)
    absent = "nothing"
    return [
        (key, one.get(key, absent), other.get(key, absent))
        for key in dict.fromkeys((*one, *other))
        if one.get(key, absent) != other.get(key, absent)
    ]


def described(subject: Any) -> dict[str, str]:
    """Return {place: description} of a subject and its parts: everything but the values and dtypes of their arrays.

    >>> described(ir.bijections.Permutation((2,), (1, 0)))["order.0"]
    '1'
    """
    return dict(_leaves(subject, ""))


def _leaves(subject: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield (place, description) of a subject, its parts, and what they end in."""
    if _has_parts(subject):
        yield path, type(subject).__name__.replace("list", "tuple")
        for name, value in _parts(subject):
            yield from _leaves(value, _below(path, name))
    elif hasattr(subject, "shape") and hasattr(subject, "dtype"):
        yield path, f"an array of shape {tuple(subject.shape)}"
    elif isinstance(subject, Activation):
        yield path, json.dumps(_encoded_activation(subject, path))
    else:
        yield path, json.dumps(subject, default=repr)


def _has_parts(subject: Any) -> bool:
    return isinstance(subject, tuple | list | Mapping) or TYPES.get(type(subject).__name__) is type(subject)


def _parts(subject: Any) -> Iterator[tuple[str | int, Any]]:
    """Yield the names and values of what a tuple, dictionary or object of `TYPES` consists of."""
    if isinstance(subject, tuple | list):
        yield from enumerate(subject)
    elif isinstance(subject, Mapping):
        yield from subject.items()
    else:
        yield from ((f.name, getattr(subject, f.name)) for f in dataclasses.fields(subject) if f.init)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as missing:
        raise BackendUnavailableError(
            'saving: the package safetensors cannot be imported; try pip install "iresnet-ref[saving]"'
        ) from missing
    return safetensors.numpy


def _encoded(value: Any, path: str, arrays: dict[str, HostArray]) -> Any:
    """Return value as JSON; arrays go to `arrays` under their path."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    parts = {name: _encoded(v, _below(path, name), arrays) for name, v in _parts(value)} if _has_parts(value) else {}
    if isinstance(value, tuple | list):
        return {"tuple": list(parts.values())}
    if isinstance(value, Mapping):
        return {"dictionary": parts}
    if isinstance(value, Activation):
        return _encoded_activation(value, path)
    if TYPES.get(type(value).__name__) is type(value):
        return {"type": type(value).__name__, "fields": parts}
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        remedy = "save its parts"
        if isinstance(value, LengthDistribution):
            remedy = "save with a number, E[N], for lengths, and state the distribution again after loading"
        raise DTypeError(
            f"save: expected arrays, numbers, names and {', '.join(TYPES)}, got {type(value).__name__} at {path or 'the top'}; "
            f"try: {remedy}"
        )
    return _encoded_array(value, path, arrays)


def _encoded_activation(value: Activation, path: str) -> dict[str, Any]:
    if value.made is not None and value.made[0] in FAMILIES:
        family, *arguments = value.made
        return {"activation": family, "argument": arguments[0] if len(arguments) == 1 else arguments}
    if ACTIVATIONS.get(value.name) != value:
        raise DTypeError(f"save: expected a named activation at {path}, got {value.name!r}, which is not in ACTIVATIONS")
    return {"activation": value.name}


def _encoded_array(value: Any, path: str, arrays: dict[str, HostArray]) -> dict[str, Any]:
    short = "bfloat16" in str(value.dtype)  # NumPy has none: its upper half of a float32 is stored
    if rounding.unit_roundoff(value) < rounding.FLOAT64_ROUNDOFF:
        raise DTypeError(
            f"save: expected at most float64 at {path}, got arbitrary precision, which would be rounded; "
            "try with_parameters of to_host arrays"
        )
    if short:
        xp = namespace(value)
        host = to_host(xp.astype(value, xp.float32)).view(np.uint32) >> np.uint32(16)
        arrays[path] = host.astype(np.uint16)
        return {"array": path, "dtype": "bfloat16"}
    arrays[path] = np.array(to_host(value), order="C", copy=True)
    return {"array": path}


def _below(path: str, name: str | int) -> str:
    return f"{path}.{name}" if path else str(name)


def _read(path: Path) -> tuple[Any, dict[str, HostArray]]:
    """Return the structure and the tensors of a file."""
    _safetensors()
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"load: expected a file, got {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            header = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"load {path}: expected a whole safetensors file, got: {error}; it may be truncated") from error
    if header.get("format") != FORMAT:
        raise FormatError(
            f"load {path}: expected a file written by iresnet_backends.save, got metadata {sorted(header)}; "
            "weights of a torch module go through from_torch"
        )
    if header.get("version") != str(VERSION):
        raise FormatError(
            f"load {path}: expected version {VERSION}, got {header.get('version')}; try a newer iresnet-ref"
        )
    try:
        return json.loads(header.get("structure", "")), arrays
    except (ValueError, RecursionError) as error:
        raise FormatError(f"load {path}: expected the structure as JSON in the metadata, got: {error}") from error


def _decoded(node: Any, arrays: dict[str, HostArray], convert: Callable[..., Any], used: set[str]) -> Any:
    """Return the value that a node of the structure describes."""
    if node is None or isinstance(node, bool | int | float | str):
        return node
    if not isinstance(node, dict):
        raise FormatError(f"expected an object in the structure, got {str(node)[:80]!r}")
    keys = set(node)
    if keys == {"tuple"} and isinstance(node["tuple"], list):
        return tuple(_decoded(v, arrays, convert, used) for v in node["tuple"])
    if keys == {"dictionary"} and isinstance(node["dictionary"], dict):
        return {name: _decoded(v, arrays, convert, used) for name, v in node["dictionary"].items()}
    if keys in ({"activation"}, {"activation", "argument"}):
        return _decoded_activation(node)
    if keys in ({"array"}, {"array", "dtype"}):
        name = node["array"]
        if name not in arrays:
            raise FormatError(f"expected a tensor {name!r}, got only {sorted(arrays)}")
        used.add(name)
        return convert(arrays[name], node.get("dtype"))
    if keys == {"type", "fields"} and isinstance(node["fields"], dict):
        cls = TYPES.get(node["type"])
        if cls is None:
            raise FormatError(f"expected a type of {', '.join(TYPES)}, got {node['type']!r}")
        wanted = {f.name for f in dataclasses.fields(cls) if f.init}
        if node["fields"].keys() != wanted:
            raise FormatError(f"{node['type']}: expected the fields {sorted(wanted)}, got {sorted(node['fields'])}")
        return cls(**{name: _decoded(v, arrays, convert, used) for name, v in node["fields"].items()})
    raise FormatError(f"expected a tuple, activation, array or type in the structure, got the keys {sorted(keys)}")


def _decoded_activation(node: dict[str, Any]) -> Any:
    name = node["activation"]
    if "argument" in node:
        arguments = node["argument"] if isinstance(node["argument"], list) else [node["argument"]]
        if name not in FAMILIES or not all(isinstance(argument, float) for argument in arguments):
            raise FormatError(f"expected an activation of {', '.join(FAMILIES)} with its numbers, got {node}")
        return FAMILIES[name](*arguments)
    if name not in ACTIVATIONS:
        raise FormatError(f"expected an activation of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


def _converter(arrays: dict[str, HostArray], like: Any, backend: Backend | str | None) -> Callable[..., Any]:
    """Return (stored array, name of its dtype if NumPy has none) ↦ array."""

    def host(a: HostArray, dtype: str | None) -> HostArray:
        if dtype is None:
            return a
        if dtype != "bfloat16" or a.dtype != np.uint16:
            raise FormatError(f"expected bfloat16 stored as uint16, got {dtype!r} as {a.dtype}")
        return (a.astype(np.uint32) << np.uint32(16)).view(np.float32)

    if isinstance(backend, str):
        from iresnet_backends import get

        wide = all(a.dtype == np.float64 for a in arrays.values())
        backend = get(backend, dtype="float64" if wide else "float32")
    if backend is not None:
        asarray = backend.asarray
        return lambda a, dtype: asarray(host(a, dtype))
    if like is not None:
        return lambda a, dtype: from_host(host(a, dtype), like)
    return host
