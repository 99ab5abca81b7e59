"""A first adapter, written by looking at an object: a class or an instance (torch, Equinox, Flax, anything), or plain functions.

What is written was tried: each line is evaluated here, on the object, before it stands in the file. Nothing is claimed for the network
that only its author can know; those fields are comments.
"""

from __future__ import annotations

import importlib
import inspect
import keyword
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from iresnet_verify.subject.calls import Caller, host_calls
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.frameworks import OPERATIONS, UNIT_ROUNDOFF, dtype_name, framework_of
from iresnet_verify.subject.inputs import subject_inputs
from iresnet_verify.subject.loading import Origin, attribute, import_file, seed_everything
from iresnet_verify.subject.module_state import is_torch_module
from iresnet_verify.subject.subject import Subject
from iresnet_verify.subject.unreadable import Remedy, event_shapes, remedy, required_arguments, weights

FORWARD = ("forward", "forward_and_log_det", "transform_and_log_det", "transform", "encode", "flow", "f")
INVERSE = ("inverse", "inverse_and_log_det", "inv", "invert", "decode", "backward")
BACKWARDS = ("reverse", "rev", "inverse", "invert")
"""Keyword arguments of forward that make it the inverse."""
OTHERS = {
    "log_det": ("log_det", "logdet", "log_abs_det", "log_det_jacobian", "log_abs_det_jacobian"),
    "residual": ("residual", "g"), "log_prob": ("log_prob",), "sample": ("sample",),
}
MEANINGS = {
    "forward": "x -> y, or (y, log_det)", "inverse": "y -> x", "log_det": "x -> log|det dF/dx|", "residual": "g, where F = id + g",
    "log_prob": "the density of x", "sample": "n -> samples of x", "module": "checks of gradients, modes and state",
    "event_shape": "one event, without the batch", "image_shape": "one image; height and width are guessed: put in yours",
    "dtype": "of inputs and answers",
}
SIZES = {
    "hidden": 16, "width": 16, "units": 16, "layer": 2, "depth": 2, "block": 2, "num": 2, "flow": 2, "kernel": 3, "channel": 3, "size": 2,
    "dim": 2, "feature": 2, "in": 2, "out": 2, "d": 2, "n": 2,
}
"""Part of the name of an argument, and the integer it is given."""
UNSTATED = """\
        # What you promise; each line switches on checks. Remove what does not hold.
        # lipschitz=0.9,              # a bound on Lip(g), where F(x) = x + g(x)
        # log_det_is="unbiased",      # "exact" | "unbiased" (random) | a bound in nats | "gradient-only"
        # inputs=lambda n, rng: rng.standard_normal({rows}),   # where the promises hold
"""


@dataclass
class Adapter:
    """The parts of the file, and the objects that its expressions mean."""

    network: Any
    imports: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)
    names: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    """Field -> expression."""
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    """Event shapes that the arguments of the constructor suggest."""

    def value(self, expression: str) -> Any:
        """What an expression means."""
        return eval(expression, self.names)

    @property
    def values(self) -> dict[str, Any]:
        """The fields as objects."""
        return {name: self.value(text) for name, text in self.fields.items()}


def write(spec: str, path: Path | None = None) -> tuple[Path, Subject]:
    """Write the adapter for FILE.py:NAME, or for the functions of FILE.py; return its path and what it returns. Raises SubjectError."""
    file, colon, name = spec.partition(":") if spec.endswith(".py") else spec.rpartition(":")
    source = Path(file)
    if not source.is_file() or source.suffix != ".py":
        raise SubjectError(f"{spec!r}: expected FILE.py:CLASS, FILE.py:FUNCTION or FILE.py, and no such file is there; "
                           "for example `iresnet-verify init my_model.py:Flow`")
    if not source.stem.isidentifier() or keyword.iskeyword(source.stem):
        raise SubjectError(f"{source.name}: an adapter has to import it, expected a name such as my_model.py; rename it")
    path = path or source.with_name(f"audit_{source.stem}.py")
    if path.exists():
        raise SubjectError(f"{path} exists; audit it (`iresnet-verify audit {path}:make_subject`), or give another place by --write")
    origin = Origin(str(source.resolve()), name)
    module = import_file(origin)
    seed_everything(0)
    adapter = _of_object(attribute(module, origin), name, module) if colon else _of_functions(module)
    subject = _complete(adapter, name or source.stem)
    adapter.imports.append(f"from {source.stem} import {', '.join(sorted(_imported(adapter, module, name)))}")
    path.write_text(_text(adapter, subject, path, source), "utf-8")
    return path, subject


def _imported(adapter: Adapter, module: ModuleType, name: str) -> set[str]:
    if adapter.network is not None:
        return {name.partition(".")[0]}
    return {text for text in adapter.fields.values() if hasattr(module, text)}


# -- the object
def _of_object(found: Any, name: str, module: ModuleType) -> Adapter:
    if isinstance(found, Subject):
        raise SubjectError(f"{name} is a Subject already; return it from a function and audit that: `iresnet-verify audit FILE.py:FACTORY`")
    if inspect.isroutine(found) and len(required_arguments(found)) == 1:
        return _of_functions(module, name)
    call, sizes = name, []
    if inspect.isclass(found) or inspect.isroutine(found):
        given, keywords = _arguments(found, name)
        call, sizes = f"{name}({given})", _sizes(found, keywords)
        try:
            found = found(**keywords)
        except Exception as error:
            raise SubjectError(
                f"{call} raised {type(error).__name__}: {error}; write a function without arguments that returns the network, and give "
                "its name instead") from error
    if isinstance(found, Subject):
        raise SubjectError(f"{name}() returns a Subject already; audit it: `iresnet-verify audit FILE.py:{name}`")
    adapter = Adapter(found, names={"network": found}, sizes=sizes)
    adapter.setup.append(f"network = {call}" + ("  # guessed arguments: put in yours" if "=" in call else ""))
    if "jax.random" in call:
        adapter.imports.append("import jax")
    if "nnx." in call:
        adapter.imports.append("from flax import nnx")
    return adapter


def _arguments(function: Callable[..., Any], name: str) -> tuple[str, dict[str, Any]]:
    """A value for each argument without a default: its text, and itself."""
    texts: dict[str, str] = {}
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return "", {}
    for p in parameters.values():
        if p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        text = _argument(p)
        if text is None:
            raise SubjectError(
                f"{name}: no value for its argument {p.name!r} can be guessed; write a function without arguments that returns the "
                f"network, `def network(): return {name}({p.name}=…)`, and give its name instead")
        texts[p.name] = text
    scope: dict[str, Any] = {}
    if any("jax." in t for t in texts.values()):
        import jax

        scope["jax"] = jax
    if any("nnx." in t for t in texts.values()):
        scope["nnx"] = importlib.import_module("flax.nnx")
    return ", ".join(f"{k}={t}" for k, t in texts.items()), {k: eval(t, scope) for k, t in texts.items()}


def _sizes(function: Callable[..., Any], given: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Event shapes suggested by arguments called dim, features or d, and by no other."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    values = {p.name: given.get(p.name, p.default) for p in parameters}
    return [(v,) for k, v in values.items() if isinstance(v, int) and not isinstance(v, bool) and v > 0
            and re.fullmatch(r"(n|in|input|event|data|x)?_?(dims?|features?|d|size|dimensions?)", k.lower())]


def _argument(p: inspect.Parameter) -> str | None:
    said = p.annotation if isinstance(p.annotation, str) else getattr(p.annotation, "__name__", "")
    if p.name == "key" or "PRNGKey" in said:
        return "jax.random.PRNGKey(0)"
    if p.name == "rngs":
        return "nnx.Rngs(0)"
    if said == "bool":
        return "False"
    if said == "float" or any(word in p.name.lower() for word in ("lip", "coef", "scale", "alpha", "rate")):
        return "0.5"
    words = p.name.lower().split("_")
    size = next((n for word, n in SIZES.items() if any(w.startswith(word) for w in words)), None)
    return None if size is None and said != "int" else str(size or 2)


def _of_functions(module: ModuleType, name: str = "") -> Adapter:
    functions = {k: v for k, v in vars(module).items() if inspect.isroutine(v) and v.__module__ == module.__name__}
    forward = name or next((n for n in FORWARD if n in functions), "")
    if not forward:
        own = ", ".join(sorted(functions)) or "none"
        raise SubjectError(f"{Path(str(module.__file__)).name}: expected a function called forward, got {own}; name it: "
                           "`iresnet-verify init FILE.py:FUNCTION`")
    adapter = Adapter(None, names=dict(functions), fields={"forward": forward})
    for field_name, words in {"inverse": INVERSE, **OTHERS}.items():
        called = next((w for w in words if w in functions and w != forward), None)
        if called:
            adapter.fields[field_name] = called
    return adapter


# -- how it is called
def _complete(adapter: Adapter, name: str) -> Subject:
    """Fill in the fields: the first way of calling forward that can be read, then all that goes with it."""
    torch = is_torch_module(adapter.network)
    weight = next((w for w in weights(adapter.network) if "float" in dtype_name(w)), None)
    jax = "jax" in sys.modules and (weight is not None if not torch else False)
    framework = "torch" if torch else "jax" if jax else _framework(adapter)
    start: dict[str, Any] = {"framework": framework, "module": adapter.network if torch else None}
    start["dtype"] = dtype_name(weight) if weight is not None else "float32" if start["framework"] == "jax" else "float64"
    shapes = [*adapter.sizes, *event_shapes(Subject(name="", event_shape=(), forward=len, module=adapter.network)), (2,)]
    fields: dict[str, Any] = {}
    for way in [adapter.fields["forward"]] if "forward" in adapter.fields else _ways(adapter, FORWARD, torch, jax):
        tried = Subject(name=name, event_shape=shapes[0], forward=adapter.value(way), **start)
        found = remedy(tried)
        if found is not None:
            fields = {**start, "event_shape": shapes[0], **{k: v for k, v in found.changes.items() if k != "inputs" or v is not None}}
            adapter.fields["forward"] = _called(adapter, "forward", way, found)
            break
    else:
        methods = ", ".join(m for m in dir(adapter.network) if not m.startswith("_"))[:300]
        raise SubjectError(f"{name}: no way of calling it was found in which a batch of inputs gives outputs of the same shape (it has "
                           f"{methods or 'no methods'}); write `def forward(x): …` in the file, and give `:forward` instead")
    if torch:
        adapter.fields["module"] = "network"
    fields = {k: v for k, v in fields.items() if k not in ("forward", "module")}
    if adapter.network is not None:
        _further(adapter, Subject(name=name, **fields, **adapter.values), torch, jax)
    return Subject(name=name, **fields, **adapter.values)


def _framework(adapter: Adapter) -> str:
    """Of functions: the framework that their file imports."""
    namespaces = [getattr(f, "__globals__", {}) for f in adapter.names.values()]
    imported = {getattr(v, "__name__", "").split(".")[0] for n in namespaces for v in n.values() if isinstance(v, ModuleType)}
    return next((f for f in ("jax", "torch") if f in imported), "numpy")


def _ways(adapter: Adapter, words: tuple[str, ...], torch: bool, jax: bool) -> Iterator[str]:
    """Expressions for the methods of the network that are called `words`."""
    network = adapter.network
    plain = [f"network.{w}" for w in words if callable(getattr(network, w, None))]
    if callable(network) and words == FORWARD:
        plain = ["network", *(w for w in plain if not torch or w != "network.forward")]
    single = jax and any(c.__module__.startswith(("equinox", "flowjax")) for c in inspect.getmro(type(network)))
    if jax:
        import jax as loaded

        adapter.names["jax"] = loaded
        mapped = [f"jax.vmap({w})" for w in plain]
        plain = [*mapped, *plain] if single else [*plain, *mapped]
    yield from plain


def _further(adapter: Adapter, subject: Subject, torch: bool, jax: bool) -> None:
    """The inverse, the log-det and the densities, as far as the network has methods of these names that can be called."""
    reverse = next((w for w in BACKWARDS if w in _keywords(adapter.network)), None)
    candidates = [f"lambda y: network(y, {reverse}=True)"] if reverse else []
    for name, words in {"inverse": INVERSE, **OTHERS}.items():
        for way in [*(candidates if name == "inverse" else []), *_ways(adapter, words, torch, jax)]:
            found = remedy(replace(subject, **{name: adapter.value(way)}), name)
            if found is not None and not found.changes and (name != "residual" or _is_residual(adapter.value(way), subject)):
                adapter.fields[name] = _called(adapter, name, way, found)
                break


def _is_residual(g: Callable[..., Any], subject: Subject) -> bool:
    """Whether F(x) − x is g(x), to the precision of the dtype; a method may be called g and be something else."""
    given = replace(subject, residual=g)
    f = host_calls(Caller(given, framework_of(given), 0), pure=False)
    x = subject_inputs(subject, 4, np.random.default_rng(0))
    assert f.residual is not None
    y = f.forward(x, seed=0)
    rounding = OPERATIONS * UNIT_ROUNDOFF[subject.dtype] * (np.abs(x) + np.abs(y) + 1)
    return bool((np.abs(y - x - f.residual(x, seed=0)) <= rounding).all())


def _keywords(network: Any) -> Mapping[str, Any]:
    try:
        return inspect.signature(network.forward if is_torch_module(network) else network).parameters
    except (TypeError, ValueError, AttributeError):
        return {}


def _called(adapter: Adapter, name: str, way: str, found: Remedy) -> str:
    """The expression of a callable: the way itself, with keywords, or a function that picks parts of the answer."""
    if name in found.changes:
        way = found.text.partition("=")[2]
    if not found.picked:
        return way
    lines = [f"def {name}(x):", f"    out = ({way})(x)" if "lambda" in way else f"    out = {way}(x)", f"    return {found.picked}"]
    exec("\n".join(lines), adapter.names)
    adapter.setup += ["", *lines, ""]
    return name


# -- the file
def _text(adapter: Adapter, subject: Subject, path: Path, source: Path) -> str:
    shape = ", ".join(map(str, subject.event_shape))
    fields = {"name": repr(subject.name), "event_shape": repr(subject.event_shape), **adapter.fields}
    if subject.framework != "torch":
        fields["framework"] = repr(subject.framework)
    if subject.dtype != "float64":
        fields["dtype"] = repr(subject.dtype)
    if subject.context_shape is not None:
        fields["context_shape"] = repr(subject.context_shape)
    if subject.inputs is not None:
        fields["inputs"] = f"lambda n, rng: rng.uniform(0.05, 0.95, (n, {shape}))"
    used = " ".join([*fields.values(), *adapter.setup])
    imports = {*adapter.imports, *(f"import {f}" for f in ("jax", "torch") if f"{f}." in used)}
    seeded = ["torch.manual_seed(0)"] if subject.framework == "torch" and adapter.network is not None else []
    imports |= {"import torch"} if seeded else set()
    first, own = sorted(i for i in imports if source.stem not in i), [i for i in adapter.imports if source.stem in i]
    width = max(len(f"{k}={v},") for k, v in fields.items() if len(v) < 40) + 2
    meanings = {**MEANINGS, "event_shape": MEANINGS["image_shape"]} if len(subject.event_shape) == 3 else MEANINGS
    lines = [f"        {f'{k}={v},':<{width}}# {meanings[k]}" if k in meanings else f"        {k}={v}," for k, v in fields.items()]
    setup = [f"    {line}".rstrip() for line in [*seeded, *adapter.setup]]
    return "\n".join([
        f'"""How {subject.name} is called and what it promises: `iresnet-verify audit {path.name}:make_subject`."""', "",
        *first, "from iresnet_verify import Subject", "", *own, "", "", "def make_subject():", *setup, "    return Subject(", *lines,
        UNSTATED.format(rows=f"(n, {shape})").rstrip("\n"), "    )", "",
    ])
