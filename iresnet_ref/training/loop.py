"""One loop: loss, gradient, clipped step of AdamW, and the certified model of the new weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from iresnet_ref.arrays import Array, Packed, Packing, holds, namespace, public, shown, to_host, whole_number
from iresnet_ref.arrays.validation import require_finite
from iresnet_ref.errors import DivergedError, DTypeError, NonFiniteError, NotContractiveError, ShapeError
from iresnet_ref.flows.flow import Flow
from iresnet_ref.training import optimiser
from iresnet_ref.training.classifier import Classifier
from iresnet_ref.training.losses import Loss
from iresnet_ref.training.normalised_model import NormalisedModel
from iresnet_ref.training.optimiser import Moments

_REMEDY = "try a smaller learning_rate, clip= or warm_up="


@public
@dataclass(frozen=True)
class Settings:
    """`clip` bounds the gradient's global norm, `warm_up` counts steps, `average` is the decay of the moving average (0: none).

    With `certify_every` = k > 1 only every k-th step is proved, see `fit`.

    Raises: ValueError for a number out of its range. Reference: Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019.

    >>> import iresnet_ref as ir
    >>> ir.training.Settings(learning_rate=5e-3, clip=1.0).warm_up
    0
    """

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip: float = math.inf
    warm_up: int = 0
    average: float = 0.0
    certify_every: int = 1

    def __post_init__(self) -> None:
        decays = (*self.betas, self.average)
        if not (0.0 < self.learning_rate < math.inf and self.epsilon > 0.0 and self.clip > 0.0 and self.weight_decay >= 0.0
                and self.warm_up >= 0 and self.certify_every >= 1 and len(self.betas) == 2 and all(0.0 <= b < 1.0 for b in decays)):
            raise ValueError(
                "settings: expected learning_rate, epsilon, clip > 0, weight_decay, warm_up ≥ 0, certify_every ≥ 1, betas and average in "
                f"[0, 1), got {self}; try Settings()"
            )


@dataclass(frozen=True, eq=False)
class State:
    """A run after `step` steps: raw weights and certified model, moments, average. It determines the rest of the run.

    `iresnet_backends.save` writes it bit for bit.

    >>> import numpy as np, iresnet_ref as ir
    >>> state = ir.training.start(ir.Flow([ir.ResidualBlock(ir.mlp((2, 4, 2)))]), lipschitz=0.9)
    >>> after = ir.training.fit(state, lambda flow, step: ir.training.maximum_likelihood(flow, np.ones((3, 2))), 2)
    >>> after.step, ir.certify(after.model.steps.steps[0].block).bound <= 0.9
    (2, True)
    """

    normalised: NormalisedModel
    settings: Settings
    moments: Moments
    average: dict[str, Array]
    step: int = 0

    @property
    def model(self) -> Any:
        """The certified flow or classifier."""
        return self.normalised.model

    def proved(self) -> State:
        """Return this state with its model proved, bit for bit the same: itself but between two proofs (`certify_every`).

        Raises NotContractiveError where an estimate was too low.
        """
        state = replace(self, normalised=self.normalised.proved())
        state.normalised.require_certified()
        return state

    @property
    def averaged(self) -> Array:
        """The certified model of the averaged raw weights; `model` where no average is kept."""
        return self.normalised.with_parameters(self.average).model if self.average else self.model


@public
def start(model: Any, *, lipschitz: float | None = 0.9, settings: Settings | None = None) -> State:
    """Return the state before the first step of training a flow or `Classifier`, already initialised (ActNorm).

    `lipschitz` bounds Lip(g) of every residual branch, by certificate, after every step; None trains the raw weights as
    they are: a standard ResNet. Raises NotContractiveError, NonFiniteError, ShapeError for a model without parameters.

    >>> import numpy as np, iresnet_ref as ir
    >>> state = ir.training.start(ir.Flow([ir.ResidualBlock(ir.mlp((2, 4, 2)))]), lipschitz=0.9)
    >>> state.step, state.normalised.lipschitz
    (0, 0.9)
    """
    if not isinstance(model, Flow | Classifier):
        raise DTypeError(f"start: expected a flow or a Classifier, got {shown(model)}; try ir.Flow([ir.ResidualBlock(branch)])")
    settings = Settings() if settings is None else settings
    normalised = NormalisedModel(model, lipschitz, None if lipschitz is None else {})
    parameters = normalised.parameters()
    if not parameters:
        raise ShapeError("start: expected a model with parameters, got none; try steps such as ir.ResidualBlock(ir.mlp((2, 8, 2)))")
    require_finite(**parameters)
    normalised.require_certified()  # here, so that a mistake shows before the first step
    if settings.certify_every > 1:
        normalised = _with_estimates(normalised)
    return State(normalised, settings, Moments.zero(parameters), parameters if settings.average else {})


def _with_estimates(normalised: NormalisedModel) -> NormalisedModel:
    """Return the model by estimates, where they are possible. Raises ValueError."""
    xp = namespace(next(iter(normalised.parameters().values())))
    if normalised.lipschitz is None or not hasattr(xp, "linalg") or not normalised.in_the_two_norm():
        raise ValueError(
            "start: expected a Lipschitz bound, branches in the 2-norm and a namespace with linalg for certify_every > 1, got others; "
            "try certify_every=1, which is cheap there"
        )
    normalised = normalised.with_estimates()
    normalised.require_certified()
    return normalised


@public
def fit(state: State, loss: Callable[[Any, int], Loss], steps: int, *, callback: Callable[[State, float], object] | None = None) -> State:
    """Return the state after `steps` more steps on loss(model, step), `step` counted from the start of the run.

    If `loss` draws its rows and probes from `step` (`minibatch`, `maximum_likelihood(step=)`), two calls of n steps
    are one of 2n, bit for bit. `callback(state, loss)` is called after each step with the loss before it: progress bars,
    checkpoints and early stops (raise) belong there. Two small synchronisations per step go to the host.

    With `settings.certify_every` = k > 1 a step normalises by estimates with a margin, and asks the host for nothing; the proof of the
    very same weights runs after steps k, 2k, … of the run, in `checkpoint`, in `State.proved` and at the end of the call. Between proofs
    `state.model` says `proved=False` and its radii are inf, the loss that is called back is a 0-d array, and nothing was looked at: what is
    not finite, and a layer beyond its share, is a DivergedError of the next proof, whose `state` is the last that was proved.

    Every state that is called back or returned has finite weights and moments, and certified blocks. It is called back once
    its own loss and gradient are known to be finite, that is when the next step begins; the last state of a call at the end.
    Raises: DivergedError where loss, gradient or new weights are not finite, or not certified; its `state` is the last whose loss
    and gradient were finite, or the one given where there is none. ShapeError where gradients do not fit the parameters.

    >>> import numpy as np, iresnet_ref as ir
    >>> from iresnet_ref.training import Settings, fit, maximum_likelihood, start
    >>> x = np.random.default_rng(0).normal(3.0, 2.0, (64, 2))
    >>> state = start(ir.Flow([ir.ResidualBlock(ir.mlp((2, 8, 2)))], None), settings=Settings(learning_rate=0.05))
    >>> losses = []
    >>> state = fit(state, lambda flow, step: maximum_likelihood(flow, x), 5, callback=lambda s, loss: losses.append(loss))
    >>> losses[-1] < losses[0], state.step
    (True, 5)
    """
    whole_number("fit: steps", steps, 0)
    for own in (state.moments.first, state.moments.second):
        optimiser.require_fitting(own, state.normalised.parameters())
    if state.settings.certify_every > 1:
        return _between_proofs(state, loss, steps, callback)
    good, before = state, None
    for _ in range(steps):
        found, value = _evaluated(state, loss, good)
        if callback is not None and before is not None:
            callback(state, before)
        good, before = state, value
        state = _stepped(state, found)
    if callback is not None and before is not None:
        callback(state, before)
    return state


@np.errstate(all="ignore")
def _between_proofs(state: State, loss: Callable[[Any, int], Loss], steps: int, callback: Callable[[State, float], object] | None) -> State:
    """The loop for certify_every > 1: the device decides nothing, the host looks where a proof is due."""
    last, finite = state, None
    for _ in range(steps):
        value, gradients, norm = _gradients(state, loss)
        xp = namespace(norm)
        good = xp.isfinite(value) & xp.isfinite(norm)
        finite = good if finite is None else finite & good
        state = _moved(state, gradients, state.normalised.estimated)
        if state.step % state.settings.certify_every == 0:
            state = last = _proved(state, finite, last, renewed=True)
            finite = None
        if callback is not None:
            try:
                callback(state, value)
            except NotContractiveError as error:  # a checkpoint asks for the proof
                raise DivergedError(f"training: {error}; .state is the last that was proved, of step {last.step}", last) from error
    return _proved(state, finite, last, renewed=False)


def _proved(state: State, finite: Any, last: State, *, renewed: bool) -> State:
    """Return the state proved. Raises DivergedError with the last one."""
    try:
        if not (finite is None or bool(finite)) or not _is_finite(state):
            raise NonFiniteError("expected finite losses, gradients, weights and moments, got NaN or infinity")
        state = replace(state, normalised=state.normalised.proved(renewed=renewed))
        state.normalised.require_certified()
    except (NonFiniteError, NotContractiveError) as error:
        raise DivergedError(
            f"training: expected the steps {last.step + 1} to {state.step} to keep what is proved at their end, got: {error}; {_REMEDY}, "
            f"or a smaller certify_every; .state is the last that was proved, of step {last.step}",
            last,
        ) from error
    return state


def _gradients(state: State, loss: Callable[[Any, int], Loss]) -> tuple[Any, Packed, Any]:
    """Return the loss, the gradient with respect to the raw parameters, clipped, and its norm before; no look at the values."""
    found = loss(state.model, state.step)
    if not isinstance(found, Loss):
        raise DTypeError(f"loss: expected a Loss, got {shown(found)}; try Loss(value, gradients)")
    parameters, clip = state.normalised.parameters(), state.settings.clip
    optimiser.require_fitting(found.gradients, parameters)
    packing = Packing.of(parameters)
    together = {"": packing.together(state.normalised.pullback(found.gradients))}
    norm = optimiser.global_norm(together)
    together = optimiser.clip(together, clip, norm) if clip < math.inf else together
    return found.value, Packed(packing, together[""]), norm


@np.errstate(all="ignore")  # what overflows is found by its value
def _evaluated(state: State, loss: Callable[[Any, int], Loss], good: State) -> tuple[Packed, float]:
    """Return the gradient with respect to the raw parameters, clipped, and the loss. Raises DivergedError with `good`."""
    found, gradients, norm = _gradients(state, loss)
    value, size = (float(v) for v in to_host(namespace(norm).stack([found, norm])))
    if not (math.isfinite(value) and math.isfinite(size)):
        raise DivergedError(
            f"training: expected a finite loss and gradient, got loss {value} and gradient norm {size} at step {state.step}; "
            f"{_REMEDY}, and look at this step's rows; .state is the last good one, of step {good.step}",
            good,
        )
    return gradients, value


@np.errstate(all="ignore")
def _stepped(state: State, gradients: Packed) -> State:
    """Return the state after a step along the gradients, finite and certified. Raises DivergedError with the one before."""
    after = _moved(state, gradients, state.normalised.with_parameters)
    try:
        if not _is_finite(after):
            raise NonFiniteError("expected finite weights and moments, got NaN or infinity")
        after.normalised.require_certified()
    except (NonFiniteError, NotContractiveError) as error:
        raise DivergedError(
            f"training: expected new weights that are finite and certified, got at step {state.step}: {error}; {_REMEDY}; "
            ".state is the last good one",
            state,
        ) from error
    return after


def step_numbers(settings: Settings, step: int, counted: int) -> dict[str, float]:
    """Return what AdamW multiplies by at this step of a run, its warm-up included, with moments of so many steps."""
    rate = settings.learning_rate * optimiser.warm_up(step, settings.warm_up)
    return optimiser.step_numbers(counted, rate, settings.betas, settings.epsilon, settings.weight_decay)


def _is_finite(state: State) -> bool:
    """Return whether weights and moments are: one look for all."""
    parameters = state.normalised.parameters()
    entries = [Packing.of(parameters).together(a) for a in (parameters, state.moments.second)]
    return holds(*(namespace(a).isfinite(a) for a in entries))


def _moved(state: State, gradients: Packed, normalise: Callable[[dict[str, Any]], NormalisedModel]) -> State:
    """Return the state after a step of AdamW, its parameters normalised so; those of a model are alike, and moved as one array."""
    settings, packing = state.settings, gradients.packing
    before = [packing.together(a) for a in (state.normalised.parameters(), gradients, state.moments.first, state.moments.second)]
    entries, first, second = optimiser.moved_by(step_numbers(settings, state.step, state.moments.step), settings.betas, *before)
    parameters, moments = packing.apart(entries), Moments(Packed(packing, first), Packed(packing, second), state.moments.step + 1)
    average = optimiser.averaged(state.average, parameters, settings.average) if settings.average else {}
    return replace(state, normalised=normalise(parameters), moments=moments, average=average, step=state.step + 1)
