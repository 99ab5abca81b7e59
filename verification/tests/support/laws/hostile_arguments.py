"""Every public callable of the reference with arguments that fit it, and with one or two of them replaced by hostile ones.

The names are found in the faces themselves; what fits a parameter is found by its name, for the callable first and for all then.
"""

from __future__ import annotations

import importlib
import inspect
import math
import random
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import iresnet_ref as ir
from iresnet_ref import training
from iresnet_ref.jacobian.factors import Dense
from iresnet_ref.layers import activations

FACES = (
    "iresnet_ref",
    *(
        f"iresnet_ref.{face}"
        for face in ("layers", "activations", "bijections", "densities", "roulette", "bounds", "spectral", "training")
    ),
)
"""Where the public names are; a face that does not exist has none."""

KERNELS = {
    "contracts_from",
    "once_proved",
    "rotation_bound",
    "of_layers",
    "slopes_between",
    "second_at",
    "split",
    "join",
    "parts",
    "pulled",
    "value",
    "forward_and_log_det",
    "preimage",
    "pullback",
    "inverse_value",
    "log_abs_det",
    "rounding",
    "amplification",
    "require",
    "require_values",
    "require_certified",
    "record",
    "pullback_from",
    "pullback_at",
    "pullback_first",
    "joint",
    "joint_pullback",
    "logits",
    "features",
    "after",
    "after_streams",
    "shared_by",
    "table",
    "estimator",
    "traces",
    "shared",
    "linearize",
    "jacobian",
    "running_error",
    "rounding_noise",
    "of_fitting",
    "weights",
    "both",
    "second",
    "norms",
    "along_channels",
    "groups",
    "host_raw",
    "host_weights",
    "host_norms",
    "norm_bound",
    "out_shape",
    "words",
    "uniforms",
    "gaussians",
    "signs",
    "orthogonal_signs",
    "columns",
    "lengths",
    "part",
    "on_stream",
    "draw",
    "count",
    "index",
}
"""Methods behind the boundary: they contain only mathematics, and say so. A block's `pullback` is public."""

X = np.random.default_rng(0).standard_normal((3, 2))


@cache
def branch() -> Any:
    return ir.mlp((2, 4, 2), seed=1)


@cache
def block() -> Any:
    return ir.ResidualBlock(branch())


@cache
def flow() -> Any:
    return ir.Flow([ir.bijections.ActNorm.uninitialised((2,)), block()]).initialise(X)


@cache
def mixture() -> Any:
    return ir.densities.GaussianMixture(np.asarray([[-1.0, 0.0], [1.0, 0.0]]), np.zeros(2), np.zeros(2))


@cache
def state() -> Any:
    return training.start(flow())


def likelihood(model: Any, step: int) -> Any:
    return training.maximum_likelihood(model, X, step=step)


FITTING: dict[str, Callable[[], Any]] = {
    "x": lambda: X,
    "y": lambda: X,
    "z": lambda: X,
    "F": block,
    "block": block,
    "terms": lambda: 4,
    "subject": block,
    "branch": branch,
    "flow": flow,
    "y_bar": lambda: np.ones((3, 2)),
    "x_bar": lambda: np.ones((3, 2)),
    "logits_bar": lambda: np.ones((3, 3)),
    "logdet_bar": lambda: np.ones(3),
    "weights": lambda: np.ones(3),
    "label_weights": lambda: np.ones(3),
    "labels": lambda: np.asarray([0, 1, 1]),
    "logits": lambda: np.zeros((3, 2)),
    "event_shape": lambda: (2,),
    "sizes": lambda: (2, 4, 2),
    "image": lambda: (4, 4),
    "steps": lambda: [block()],
    "blocks": lambda: [block(), block()],
    "layers": lambda: branch().layers,
    "rest": lambda: [],
    "d": lambda: 2,
    "n": lambda: 3,
    "k": lambda: 3,
    "lipschitz": lambda: 0.5,
    "c": lambda: 0.9,
    "q": lambda: 0.9,
    "mean": lambda: 2.0,
    "weight": lambda: np.asarray([[0.5, 0.1], [0.2, 0.3]]),
    "bias": lambda: np.zeros(2),
    "matrix": lambda: np.eye(2),
    "log_scale": lambda: np.zeros(2),
    "shift": lambda: np.zeros(2),
    "lower": lambda: np.eye(2),
    "upper": lambda: np.eye(2),
    "order": lambda: (1, 0),
    "signs": lambda: (1.0, -1.0),
    "channels": lambda: 2,
    "operator": lambda: Dense(np.eye(2)),
    "like": lambda: np.zeros(1),
    "context": lambda: None,
    "parameters": lambda: None,
    "log_prob": lambda: flow().log_prob(X),
    "dimensions": lambda: 2,
    "means": lambda: np.zeros((2, 2)),
    "rows": lambda: 8,
    "batch": lambda: 4,
    "step": lambda: 1,
    "model": flow,
    "state": state,
    "loss": lambda: likelihood,
    "decay": lambda: 0.5,
    "largest": lambda: 1.0,
    "classes": lambda: 3,
    "gradients": lambda: {"a": np.ones(2)},
    "average": lambda: {"a": np.ones(2)},
    "moments": lambda: training.Moments.zero({"a": np.ones(2)}),
    "v": lambda: None,
    "t_bar": lambda: None,
    "level": lambda: 0.9,
    "survival": lambda: lambda k: 0.9 ** (k - 1),
    "decay_rate": lambda: 0.9,
    "normalised": lambda: state().normalised,
    "first": lambda: 0,
    "value": lambda: np.zeros(3),
    "name": lambda: "elu",
    "activation": lambda: "elu",
    "inner": lambda: branch().layers[:2],
    "alpha": lambda: 0.05,
    "slope": lambda: 0.1,
    "options": ir.Options,
    "raw": lambda: np.full(1, 0.5),
    "both": lambda: activations.get("tanh").both,
    "second": lambda: np.tanh,
}
"""What fits a parameter of this name that has no default."""

FITTING_FOR: dict[str, dict[str, Callable[[], Any]]] = {
    "convnet": {"event_shape": lambda: (2, 4, 4), "channels": lambda: 4},
    "Squeeze": {"event_shape": lambda: (1, 2, 2)},
    "ZeroPad": {"event_shape": lambda: (2, 2, 2), "channels": lambda: 1},
    "DiagonalAffine": {"scale": lambda: np.ones(2)},
    "Parallel": {"paths": lambda: ((), branch().layers[1:2])},
    "Rearrangement": {"event": lambda: (2, 3), "axes": lambda: (1, 0), "out": lambda: (6,)},
    "FactorOut": {"event_shape": lambda: (4,), "rest": lambda: [block()]},
    "norm_on_every_image": {"kernel": lambda: np.full((2, 2, 3, 3), 0.1)},
    "Conv": {"weight": lambda: np.full((2, 2, 3, 3), 0.1)},
    "DiagonalGaussian": {"mean": lambda: np.zeros(2)},
    "GaussianMixture": {"log_scale": lambda: np.zeros(2), "logits": lambda: np.zeros(2)},
    "PLULinear": {"log_scale": lambda: np.zeros(2)},
    "ContextShift": {"weight": lambda: np.ones((2, 3)), "context": lambda: np.ones((3, 3))},
    "Classifier": {"weight": lambda: np.ones((3, 2)), "bias": lambda: np.zeros(3)},
    "Classifier.pullback": {"logits_bar": lambda: np.ones((3, 3))},
    "classification": {"model": lambda: training.Classifier.with_zero_head([block()], 2)},
    "hybrid": {"flow": lambda: ir.Flow([block()], mixture())},
    "fit": {"steps": lambda: 1},
    "warm_up": {"steps": lambda: 4},
    "inverse_gradient": {"x_bar": lambda: np.ones((3, 2))},
    "Moments.zero": {"parameters": lambda: {"a": np.ones(2)}},
    "adamw": {"parameters": lambda: {"a": np.ones(2)}},
    "averaged": {"parameters": lambda: {"a": np.ones(2)}},
    "power_iteration": {"steps": lambda: 20},
    "singular_triple": {"steps": lambda: 100},
    "NormalisedModel": {"raw": flow},
    "NormalisedBranch": {"raw": branch},
    "SandwichBranch": {
        "weights": lambda: (np.ones((4, 2)), np.ones((2, 4))), "biases": lambda: (np.zeros(4), np.zeros(2)),
        "scales": lambda: (np.zeros(4),), "activation": lambda: activations.get("elu"),
    },
    "Activation": {"name": lambda: "mine", "value": lambda: np.tanh, "lipschitz": lambda: 1.0},
    "Pointwise": {"activation": lambda: activations.get("elu")},
    "Moments": {"first": lambda: {"a": np.ones(2)}, "second": lambda: {"a": np.ones(2)}},
    "GaussianMixture.component": {"y": lambda: 1},
    "Logit": {"event_shape": lambda: (2,)},
    "Logit.__call__": {"x": lambda: np.full((3, 2), 7.5)},
    "Logit.forward": {"x": lambda: np.full((3, 2), 7.5)},
    "dequantise": {"x": lambda: np.asarray([[0.0, 255.0]])},
}
"""What fits this callable, where the name alone does not say it."""


class Odd:
    """An object of no kind the library knows."""


def hostile() -> list[tuple[str, Any]]:
    """What no caller should pass, and what some callers may: (how it reads, value)."""
    nan = X.copy()
    nan[1, 0] = math.nan
    scalars: list[Any] = [
        None,
        True,
        -1,
        0,
        1,
        2,
        3,
        2.5,
        -0.5,
        0.5,
        1.0,
        math.nan,
        math.inf,
        -math.inf,
        1e308,
        1e-320,
        2**64,
        "a",
        "",
        "auto",
        b"a",
        1j,
        np.float32(0.5),
        np.int64(2),
        np.bool_(True),
    ]
    groups: list[Any] = [
        (),
        [],
        {},
        (2,),
        (-1,),
        (1.5, 2),
        ("a", "b"),
        (2, 3),
        (0, 1),
        (1, 1),
        (3.0, 1.0),
        [1.0, 2.0],
        {"a": 1.0},
        {"a": X},
        range(2),
        {1, 2},
        np,
        int,
        Odd(),
        len,
        ...,
    ]
    arrays = [
        ("integers", np.ones((3, 2), dtype=np.int64)),
        ("one row", X[:1]),
        ("no row", X[:0]),
        ("four rows", np.ones((4, 2))),
        ("five columns", np.ones((3, 5))),
        ("no column", np.ones((3, 0))),
        ("flat", np.ones(2)),
        ("3 numbers", np.ones(3)),
        ("0-d", np.asarray(0.5)),
        ("1 number", np.ones(1)),
        ("nothing", np.ones(0)),
        ("NaN", nan),
        ("infinity", np.full((3, 2), math.inf)),
        ("NaN vector", np.full(2, math.nan)),
        ("NaN matrix", np.full((2, 2), math.nan)),
        ("masked", np.ma.masked_array(nan, np.isnan(nan))),
        ("masked vector", np.ma.masked_array(np.ones(2), [0, 1])),
        ("float32", X.astype(np.float32)),
        ("float16", X.astype(np.float16)),
        ("longdouble", X.astype(np.longdouble)),
        ("complex", X.astype(complex)),
        ("objects", X.astype(object)),
        ("texts", np.full((3, 2), "a")),
        ("Booleans", X > 0.0),
        ("dates", np.full((3, 2), "2020-01-01", dtype="datetime64[D]")),
        ("records", np.zeros(3, dtype=[("a", float)])),
        ("huge", np.full((3, 2), 1.7e308)),
        ("tiny", np.full((3, 2), 5e-324)),
        ("huge matrix", np.full((2, 2), 1e308)),
        ("backwards", X[::-1, ::-1]),
        ("byte-swapped", X.astype(X.dtype.newbyteorder())),
        ("four axes", np.ones((1, 2, 2, 2))),
        ("np.matrix", np.ones((3, 2)).view(np.matrix)),
    ]
    return (
        [(repr(v)[:40], v) for v in scalars + groups]
        + arrays
        + [
            ("a block", block()),
            ("a branch", branch()),
            ("a flow", flow()),
            ("probes", ir.Probes(seed=3)),
            ("geometric(.9)", ir.roulette.geometric(0.9)),
        ]
    )


@dataclass(frozen=True)
class Call:
    """One call: `name` and the hostile arguments as text, and what runs it."""

    name: str
    told: str
    run: Callable[[], Any]
    arguments: dict[str, Any]


@cache
def public() -> dict[str, Any]:
    """Return dotted name → function or class of all faces."""
    found: dict[str, Any] = {}
    for face in FACES:
        try:
            module = importlib.import_module(face)
        except ModuleNotFoundError:
            continue
        for name in getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]):
            thing = getattr(module, name)
            if callable(thing) and not (
                inspect.isclass(thing)
                and (
                    issubclass(thing, BaseException)
                    or inspect.isabstract(thing)
                    or getattr(thing, "_is_protocol", False)
                )
            ):
                found.setdefault(name, thing)
    return found


def fitting(name: str, signature: inspect.Signature, owner: str = "") -> dict[str, Any]:
    """Return arguments that fit all parameters without a default. Raises KeyError for a name that nothing is known of."""
    own = {**FITTING_FOR.get(owner, {}), **FITTING_FOR.get(name, {})} if owner else FITTING_FOR.get(name, {})
    found = {}
    unknown = {k for k, p in signature.parameters.items() if p.default is p.empty and k not in own and k not in FITTING}
    assert not unknown - {"args", "options"}, f"say in FITTING or FITTING_FOR what fits {sorted(unknown)} of {name}"
    for key, parameter in signature.parameters.items():
        if parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}:
            continue
        if key in own or parameter.default is parameter.empty:
            found[key] = own[key]() if key in own else FITTING[key]()
    return found


@cache
def instances() -> dict[str, Any]:
    """Return class name → an object of it, of every class that can be built from what fits."""
    return {
        name: thing(**fitting(name, inspect.signature(thing)))
        for name, thing in public().items()
        if inspect.isclass(thing) and not _is_result(thing)
    }


def _is_result(thing: Any) -> bool:
    """Whether users get such objects and never build them: its fields are those that the library has computed."""
    fields = inspect.signature(thing).parameters
    return bool(
        {
            "residual_norm",
            "bias_bound",
            "sigma",
            "reconstructions",
            "truncation",
            "proved",
            "monotone",
            "logdet",
            "normalised",
        }
        & set(fields)
    )


def targets() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield (name, callable, arguments that fit) for functions, constructors, class methods and the public methods of objects."""
    for name, thing in public().items():
        if inspect.isclass(thing) and _is_result(thing):
            continue
        yield name, thing, fitting(name, inspect.signature(thing))
        if not inspect.isclass(thing):
            continue
        made = instances()[name]
        for method, _ in inspect.getmembers(thing, callable):
            bound = getattr(made, method)
            is_class_method = isinstance(inspect.getattr_static(thing, method), classmethod)
            public_method = method == "__call__" or not method.startswith("_")
            kernel = method in KERNELS and not (name == "ResidualBlock" and method == "pullback")
            if not public_method or kernel or (method == "__call__" and hasattr(made, "linearize")):
                continue
            if not isinstance(bound, types.MethodType | types.BuiltinMethodType | types.FunctionType):
                continue
            signature = inspect.signature(bound)
            if any(p.kind not in {p.VAR_KEYWORD, p.VAR_POSITIONAL} for p in signature.parameters.values()):
                full = f"{name}.{method}"
                yield full, bound, _for_method(made, full, name if is_class_method else "", signature)


def _for_method(made: Any, full: str, owner: str, signature: inspect.Signature) -> dict[str, Any]:
    arguments = fitting(full, signature, owner)
    own = FITTING_FOR.get(full, {})
    for key, shape in (("x", "in_shape"), ("y", "out_shape"), ("z", "out_shape")):
        if key in arguments and key not in own and isinstance(getattr(made, shape, None), tuple):
            arguments[key] = np.random.default_rng(1).uniform(0.2, 0.8, (3, *getattr(made, shape)))
    if "parameters" in signature.parameters and "parameters" not in own and hasattr(made, "parameters"):
        arguments["parameters"] = made.parameters() if callable(made.parameters) else dict(made.parameters)
    return arguments


def suits(key: str, value: Any) -> bool:
    """Whether to try a value: no sizes and counts beyond a million numbers, no functions of the user's that fail by themselves."""
    if key in {"loss", "callback", "survival", "value", "both", "second"}:
        return not callable(value)
    return not (isinstance(value, int) and value > 10**6) or key in {"seed", "step", "stream", "first"}


def calls(seed: int = 0, pairs: int = 2) -> Iterator[Call]:
    """Yield every callable with each parameter replaced by each hostile value, and `pairs` calls a parameter with two replaced."""
    values, rng = hostile(), random.Random(seed)
    for name, target, arguments in targets():
        signature = inspect.signature(target)
        keys = [k for k, p in signature.parameters.items() if p.kind not in {p.VAR_KEYWORD, p.VAR_POSITIONAL}]
        pools = {key: [v for v in values if suits(key, v[1])] for key in keys}
        single = [{key: value} for key in keys for value in pools[key]]
        double = [{a: rng.choice(pools[a]), b: rng.choice(pools[b])} for a in keys for b in keys[:pairs] if a != b]
        for replaced in single + double:
            whole = {**arguments, **{key: value for key, (_, value) in replaced.items()}}
            told = ", ".join(f"{key}={text}" for key, (text, _) in replaced.items())
            yield Call(name, told, lambda target=target, whole=whole: _called(target, whole), whole)  # type: ignore[misc]


def _called(target: Any, arguments: dict[str, Any]) -> Any:
    """Call with what is positional by position: some built-in methods take no names."""
    kinds = inspect.signature(target).parameters
    positional = [arguments.pop(k) for k, p in kinds.items() if p.kind is p.POSITIONAL_ONLY and k in arguments]
    return target(*positional, **arguments)
