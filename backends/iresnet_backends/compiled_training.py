"""A training whose step is compiled once: one pure function of weights, rows and draws, by `jax.jit` or by Inductor, torch's compiler.

The function is what `ir.training.fit` does between two proofs: loss, gradient, clipping, AdamW. It is traced at the first step and never
again. What decides on values stays outside: the host proves norms, and divided weights go up as one array, with the slopes of their norms;
draws are made on the host, those of `ir.Probes` for the step, and enter as inputs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

import iresnet_ref as ir
from iresnet_backends.layer_options import probes_of, with_probes
from iresnet_backends.step_proofs import StepProofs
from iresnet_ref.arrays import Packing, family, from_host, namespace, to_host, whole_number
from iresnet_ref.branches.certificate import Certificate
from iresnet_ref.branches.normalised import Scaling
from iresnet_ref.errors import DivergedError, DTypeError, ShapeError
from iresnet_ref.log_determinant.methods import Auto, Estimate, named
from iresnet_ref.training import optimiser
from iresnet_ref.training.loop import State, step_numbers
from iresnet_ref.training.losses import Loss, maximum_likelihood
from iresnet_ref.training.normalised_model import NormalisedModel
from iresnet_ref.training.optimiser import Moments

Arrays = dict[str, Any]


class Moving(NamedTuple):
    """What a step replaces, each one array of all entries, by the name `ALL`. JAX writes the new values where the old ones were."""

    parameters: Arrays
    first: Arrays
    second: Arrays
    average: Arrays


ALL = "all"


def fit(
    state: State,
    rows: Callable[[int], Any],
    steps: int,
    *,
    loss: Callable[..., Loss] = maximum_likelihood,
    options: ir.Options | None = None,
    callback: Callable[[State, float], object] | None = None,
    compile: bool = True,
) -> State:
    """Return the state after `steps` more steps on loss(model, *rows(step)): `ir.training.fit` with its step compiled once.

    `rows(step)` is an array or a tuple of arrays, of the same shapes at every step: the batch, and what else the loss takes (labels,
    weights of rows). `loss` is called as loss(model, *arrays, check=False), for a flow with `options=` in addition, the flow's own unless
    they are given. It is traced once, so it may look at shapes, not at values. Losses and weights are those of `ir.training.fit` to
    rounding, with its draws. Every step is proved. `callback(state, loss)` is called after each with arrays of its own. With `compile`
    False torch runs the same function as it is; JAX always compiles.

    Cost: tracing and compiling, at the first step of each call; on torch what blocks of equal shapes repeat is compiled once.

    Raises: DivergedError as `ir.training.fit` does, its `state` the last whose loss, gradient and weights were finite; ShapeError
    where rows change their shape; DTypeError for arrays of other packages and for branches whose layers the host makes (`ir.sandwich`);
    ValueError for certify_every > 1, no Lipschitz bound, log-determinants whose number of terms is drawn or depends on values and, on
    JAX's CPU, exact ones above order 8.

    >>> import jax.numpy as jnp, iresnet_ref as ir
    >>> from iresnet_backends import compiled_training
    >>> x = jnp.asarray([[0.0, 1.0], [2.0, 5.0], [4.0, 3.0]])
    >>> state = ir.training.start(ir.Flow([ir.ResidualBlock(ir.mlp((2, 4, 2), like=x))]))
    >>> state = compiled_training.fit(state, lambda step: x, 3)
    >>> state.step, state.model.steps.steps[0].block.certificate.bound <= 0.9
    (3, True)
    """
    whole_number("fit: steps", steps, 0)
    own: ir.Options = getattr(state.model, "options", ir.Options())
    run = _Run(state, loss, _fixed(own if options is None else options))
    moving = run.begin(state)
    function: Any = None
    for step in range(state.step, state.step + steps):
        inputs = run.inputs(rows(step), step)
        if function is None:
            run.note_draws(moving, inputs)
            function = _compiled(run.step, (moving, *inputs), compile)
        moving, report = function(moving, *inputs)
        finite, value, parameters = run.read(report)
        if not finite:
            raise DivergedError(
                f"training: expected a finite loss, gradient and weights, got others at step {step}; try a smaller learning_rate, clip= or "
                "warm_up=, and look at this step's rows; .state is the last good one",
                run.state(moving, step),
            )
        run.proofs.prove(parameters)
        if callback is not None:
            callback(run.state(run.copied(moving), step + 1), value)
    return run.state(moving, state.step + steps)


def _new_draws() -> _Draws:
    return _Draws()


@dataclass
class _Run:
    """The pure function of a training, and what enters it."""

    start: State
    loss: Callable[..., Loss]
    options: ir.Options
    draws: _Draws = field(default_factory=_new_draws)
    shapes: Any = None
    traces: int = 0

    def __post_init__(self) -> None:
        normalised, self.like = self.start.normalised, next(iter(self.start.normalised.parameters().values()))
        if family(self.like) not in {"jax", "torch"}:
            raise DTypeError(f"fit: expected weights of JAX or torch, got {family(self.like)}'s; try ir.training.fit, which takes any")
        if normalised.lipschitz is None or self.start.settings.certify_every > 1:
            raise ValueError(
                "fit: expected a Lipschitz bound that every step proves, got lipschitz=None or certify_every > 1; try 0.9 and 1"
            )
        for branch in _residual_branches(normalised.raw.steps):
            if type(branch) is not ir.Branch:
                raise DTypeError(f"fit: expected branches that are an ir.Branch, got {type(branch).__name__}; try ir.training.fit")
        self.bound = normalised.lipschitz
        self.proofs = StepProofs(normalised)
        self.all = Packing.of(normalised.parameters())
        self.apart = importlib.import_module("jax").jit(self.all.apart) if family(self.like) == "jax" else self.all.apart
        self.names = list(step_numbers(self.start.settings, 0, 0))
        self.given = Packing({**self.proofs.given, "numbers": (len(self.names),)})

    def step(self, moving: Moving, given: Any, arrays: tuple[Any, ...], draws: Arrays) -> tuple[Moving, Any]:
        """Return what moved, and as one array whether all is finite, the loss, and the parameters; where it is not, nothing has moved."""
        self.traces += 1
        own: Any = self.given.apart(given)
        numbers = {name: own["numbers"][i] for i, name in enumerate(self.names)}
        raw, divided, slopes = self.all.apart(moving.parameters[ALL]), *map(self.proofs.weights.apart, (own["divided"], own["slopes"]))
        model = _stating(self.start.model.with_parameters({**raw, **divided}), self.bound)
        more = {"options": self.draws.into(self.options, draws)} if isinstance(model, ir.Flow) else {}
        found = self.loss(model, *arrays, check=False, **more)
        gradients, xp = dict(found.gradients), namespace(self.like)
        optimiser.require_fitting(gradients, raw)
        for i, (key, slope) in enumerate(slopes.items()):
            scaling = Scaling(own["scales"][i], own["sigmas"][i], slope)
            gradients[key] = scaling.pullback(gradients[key], raw[key])
        gradients = {ALL: self.all.together(gradients)}
        settings, norm = self.start.settings, optimiser.global_norm(gradients)
        gradients = gradients if settings.clip == np.inf else optimiser.clip(gradients, settings.clip, norm)
        before = (part[ALL] for part in (moving.parameters, gradients, moving.first, moving.second))
        parameters, first, second = ({ALL: a} for a in optimiser.moved_by(numbers, settings.betas, *before))
        average = optimiser.averaged(moving.average, parameters, settings.average) if settings.average else {}
        new = Moving(parameters, first, second, average)
        finite = xp.isfinite(found.value) & xp.isfinite(norm)
        for array in (parameters[ALL], second[ALL]):
            finite = finite & xp.all(xp.isfinite(array))
        kept = (
            {key: xp.where(finite, a, old[key]) for key, a in part.items()} for part, old in zip(new, moving, strict=True)
        )
        moved = Moving(*kept)
        numbers = xp.stack([xp.astype(finite, self.like.dtype), found.value], axis=0)
        return moved, xp.concat([numbers, moved.parameters[ALL]], axis=0)

    def read(self, report: Any) -> tuple[bool, float, Arrays]:
        """Return whether all was finite, the loss and the parameters, on the host, by one transfer."""
        host = np.array(to_host(report))
        return bool(host[0] == 1.0), float(host[1]), self.all.apart(host[2:])

    def begin(self, state: State) -> Moving:
        """Return what moves, as arrays of this run alone."""
        parts = (state.normalised.parameters(), state.moments.first, state.moments.second, state.average)
        return self.copied(Moving(*({ALL: self.all.together(part)} if part else {} for part in parts)))

    def copied(self, moving: Moving) -> Moving:
        """Return the same values in memory of their own."""
        xp = namespace(self.like)
        return Moving(*({key: xp.asarray(a, copy=True) for key, a in part.items()} for part in moving))

    def inputs(self, rows: Any, step: int) -> tuple[Any, ...]:
        """Return what the function takes beside what moves. Raises ShapeError."""
        arrays = tuple(rows) if isinstance(rows, tuple) else (rows,)
        shapes = [(tuple(a.shape), a.dtype) for a in arrays]
        if self.shapes not in (None, shapes):
            raise ShapeError(
                f"fit: expected arrays as at the first step, {self.shapes}, for which the step was compiled, got {shapes} at step {step}; "
                "try batches of one size (ir.training.minibatch), or another call of fit"
            )
        self.shapes = shapes
        numbers = step_numbers(self.start.settings, step, self._counted(step))
        given = self.given.together({**self.proofs.found._asdict(), "numbers": np.asarray([numbers[name] for name in self.names])})
        streams = getattr(self.start.model.steps, "streams", 0)
        given = np.asarray(given, dtype=self.proofs.dtype)
        return given if family(self.like) == "jax" else from_host(given, self.like), arrays, self.draws.of_step(step * streams, self.like)

    def note_draws(self, moving: Moving, inputs: tuple[Any, ...]) -> None:
        """Run the function once without values, for what it draws; the inputs get it."""
        if probes_of(named(self.options.logdet)) is None:
            return
        self.draws.asked = {}
        if family(self.like) == "jax":
            importlib.import_module("jax").eval_shape(self.step, moving, *inputs)
        else:
            self.step(moving, *inputs)
        inputs[-1].update(self.draws.of_step(0, self.like))

    def separate(self, entries: Any) -> Arrays:
        """Return the arrays of these entries, each in memory of its own."""
        arrays: Arrays = self.apart(entries)
        return arrays if family(entries) == "jax" else {key: namespace(a).asarray(a, copy=True) for key, a in arrays.items()}

    def state(self, moving: Moving, step: int) -> State:
        """Return the state of these arrays, certified when it is asked for its model."""
        parameters, first, second, average = (self.separate(part[ALL]) if part else {} for part in moving)
        raw = self.start.normalised.raw.with_parameters(parameters)
        moments = Moments(first, second, self._counted(step))
        return State(NormalisedModel(raw, self.bound, self.proofs.warm), self.start.settings, moments, average, step)

    def _counted(self, step: int) -> int:
        """Return of how many steps the moments are."""
        return self.start.moments.step + step - self.start.step


@dataclass
class _Draws:
    """The draws of a step: which are asked for while the function is traced, and the arrays that stand for them."""

    asked: dict[str, tuple[ir.Probes, tuple[int, ...]]] = field(default_factory=dict)
    given: Arrays | None = None

    def into(self, options: ir.Options, given: Arrays) -> ir.Options:
        """Return the options with probes that are inputs; without `given` they are zero, and noted."""
        method, self.given = named(options.logdet), given or None
        probes = probes_of(method)
        if probes is None:
            return options
        own = _InputProbes(probes.seed, probes.stream, probes.kind, probes.count, probes.block, probes.first, self)
        return replace(options, logdet=with_probes(method, own))

    def take(self, probes: ir.Probes, like: Any) -> Any:
        """Return the array of these probes."""
        name = f"{probes.stream}.{probes.first}.{probes.count}"
        if self.given is not None:
            return self.given[name]
        plain = ir.Probes(probes.seed, probes.stream, probes.kind, probes.count, probes.block, probes.first)
        self.asked[name] = plain, tuple(like.shape)
        xp = namespace(like)
        return xp.broadcast_to(xp.zeros_like(like), (probes.count * probes.block, *like.shape))

    def of_step(self, streams: int, like: Any) -> Arrays:
        """Return the draws after so many streams, in the namespace of `like`."""
        kind = to_host(like).dtype
        return {
            name: from_host(to_host(probes.on_stream(probes.stream + streams).draw(np.zeros(shape, dtype=kind))), like)
            for name, (probes, shape) in self.asked.items()
        }


@dataclass(frozen=True)
class _InputProbes(ir.Probes):
    """Probes whose draws are inputs of a compiled function."""

    source: Any = field(default=None, compare=False)

    def draw(self, like: Any) -> Any:
        """Return v of shape (count·block, *like.shape)."""
        return self.source.take(self, like)

    def lengths(self, batch: int, thresholds: Any, n_exact_terms: int) -> Any:
        """Refuse: a compiled function has one length. Raises ValueError."""
        del batch, thresholds, n_exact_terms
        raise ValueError(
            "fit: expected a log-determinant whose number of terms is fixed, got one that draws it; try ir.Options(logdet=ir.Series(10)), "
            "or ir.training.fit"
        )


def _fixed(options: ir.Options) -> ir.Options:
    """Return the options. Raises ValueError for a method whose work depends on values."""
    method = named(options.logdet)
    estimate = method.estimate if isinstance(method, Auto) else method
    if isinstance(estimate, Estimate) and estimate.standard_error is not None:
        raise ValueError(
            f"fit: expected a log-determinant of fixed cost, got standard_error={estimate.standard_error}; try a count of probes instead"
        )
    return options


def _residual_branches(step: Any) -> Iterator[Any]:
    """Yield the branches of all residual blocks."""
    if isinstance(step, ir.bijections.Composition):
        for inner in step.steps:
            yield from _residual_branches(inner)
    elif isinstance(step, ir.bijections.FactorOut):
        yield from _residual_branches(step.rest)
    elif isinstance(step, ir.bijections.Residual):
        yield step.block.branch


def _stating(model: Any, bound: float) -> Any:
    """Return the model, each residual branch of it with the bound that its division keeps."""
    for branch in _residual_branches(model.steps):
        vars(branch)["_product"] = Certificate(bound, True, "each weight was divided by a proved bound of its norm")
    return model


def count(jaxpr: Any, primitive: str) -> int:
    """Return how many equations of a program of JAX are this primitive, inner programs included."""
    found = 0
    for equation in jaxpr.eqns:
        found += equation.primitive.name == primitive
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(part, "jaxpr", part)
                found += count(inner, primitive) if hasattr(inner, "eqns") else 0
    return found


def _compiled(function: Callable[..., Any], arguments: tuple[Any, ...], compile: bool) -> Callable[..., Any]:
    """Return the function compiled for such arguments, traced once; the first argument is donated where the compiler takes that.

    XLA on a CPU runs at once what does not depend on each other. Two factorisations then each keep a thread and wait for another one: for
    ever, where there are few. So more than one is refused.
    """
    like = arguments[0].parameters[ALL]
    if family(like) == "jax":
        traced = importlib.import_module("jax").jit(function, donate_argnums=0).trace(*arguments)
        factorisations = count(traced.jaxpr.jaxpr, "lu")
        if factorisations > 1 and like.device.platform == "cpu":
            raise ValueError(
                "fit: expected at most one factorisation in a step on JAX's CPU, where several may wait for each other for ever, got "
                f"{factorisations}, of exact log-determinants above order 8; try ir.Options(logdet=ir.Series(10)), jax_layers, or torch"
            )
        return traced.lower().compile()
    torch = importlib.import_module("torch")
    if not compile:
        return function
    make_fx = importlib.import_module("torch.fx.experimental.proxy_tensor").make_fx
    functional = torch.func.functionalize(function)

    def step(moving: Any, given: Any, arrays: Any, draws: Any) -> Any:  # the tracer counts the arguments of a function
        return functional(moving, given, arrays, draws)

    def own(arrays: Any) -> Any:
        """Return the caller's arrays in memory of their own, row by row, as the program was compiled for."""
        return tuple(a.detach().clone(memory_format=torch.contiguous_format) for a in arrays)

    moving, given, arrays, draws = arguments
    with torch.no_grad():
        program = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(moving, given, own(arrays), draws)
    program = importlib.import_module("iresnet_backends.repeated_stretches").compiled(program)
    return lambda moving, given, arrays, draws: program(moving, given, own(arrays), draws)
