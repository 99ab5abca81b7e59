"""Losses with their gradients: likelihood of a flow, cross-entropy of a classifier, both of one network. Rows may have weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from iresnet_ref.arrays import Array, device, every_row, flatten_events, holds, namespace, public
from iresnet_ref.arrays.validation import (
    require_alike,
    require_array,
    require_batch,
    require_finite,
    require_real,
    require_rows,
)
from iresnet_ref.errors import DTypeError, ShapeError
from iresnet_ref.flows.bijections.protocol import Options
from iresnet_ref.flows.flow import Flow
from iresnet_ref.flows.mixture import GaussianMixture, log_softmax, log_sum
from iresnet_ref.training.classifier import Classifier


@public
@dataclass(frozen=True)
class Loss:
    """A `value` (a 0-d array) and its `gradients`, {parameter: array}.

    Units: nats. From `ir.training.maximum_likelihood`, `classification` and `hybrid`.

    >>> import numpy as np, iresnet_ref as ir
    >>> flow = ir.Flow([ir.ResidualBlock(ir.mlp((2, 4, 2)))])
    >>> tuple(ir.training.maximum_likelihood(flow, np.ones((3, 2))).value.shape)
    ()
    """

    value: Array
    gradients: dict[str, Array]


@public
def maximum_likelihood(
    flow: Flow, x: Array, *, weights: Array | None = None, options: Options | None = None, step: int = 0, check: bool = True
) -> Loss:
    """Return −Σ_b w_b log p(x_b) in nats and its gradient; x (batch, *event), `weights` (batch,), default 1/batch.

    Exact, or unbiased where `options` (default: the flow's) ask for an estimated log-determinant. `step` moves the random
    streams on, so that every step of a training draws its own probes: (step, seed) determine them.
    Raises: ShapeError, DTypeError, NonFiniteError. Reference: [B19] §4, [C19] eq. 8.

    >>> import numpy as np, iresnet_ref as ir
    >>> flow = ir.Flow([ir.bijections.ActNorm.uninitialised((2,), like=np.eye(2)), ir.ResidualBlock(ir.mlp((2, 8, 2)))])
    >>> loss = maximum_likelihood(flow.initialise(np.eye(2)), np.eye(2))
    >>> loss.value.shape, sorted(loss.gradients)[:2]
    ((), ['0.log_scale', '0.shift'])
    """
    flow.steps.require(x, "x", check=check, weights=weights)
    require_alike(x, flow.base.like, "x")
    xp = namespace(x)
    if x.shape[0] == 0:
        raise ShapeError(f"maximum_likelihood: expected a batch with rows, got {tuple(x.shape)}; try at least one")
    weights = _weights(x, weights)
    options = _of_step(flow, options, step)
    log_prob, _, gradients = flow.log_prob_and_gradient(x, weights=-weights, options=options, check=False)
    return Loss(-xp.sum(weights * log_prob.value), gradients)


@public
def cross_entropy(logits: Array, labels: Any, *, weights: Array | None = None, check: bool = True) -> tuple[Array, Array]:
    """Return −Σ_b w_b log softmax(logits_b)[label_b] in nats, and its gradient with respect to the logits.

    `logits` (batch, classes), `labels` integers (batch,) on the same backend, `weights` (batch,), default 1/batch. The largest
    logit is subtracted first: nothing overflows. Raises: ShapeError, DTypeError, and NonFiniteError or ValueError for labels
    outside [0, classes), which cost one host synchronisation (`check`).

    >>> import numpy as np
    >>> value, gradient = cross_entropy(np.zeros((1, 2)), np.asarray([1]))
    >>> np.round(value, 4).tolist(), gradient.tolist()
    (0.6931, [[0.5, -0.5]])
    """
    require_real(logits, "logits")
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ShapeError(f"cross_entropy: expected logits (batch, classes), got {tuple(logits.shape)}; put the batch first")
    _require_labels(labels, logits.shape[0], logits.shape[1], check, logits=logits, weights=weights)
    return _cross_entropy(logits, labels, _weights(logits, weights))


def _cross_entropy(logits: Array, labels: Any, weights: Array) -> tuple[Array, Array]:
    """The same, with weights and without a look."""
    xp = namespace(logits)
    classes = xp.arange(logits.shape[1], dtype=labels.dtype, device=device(logits))
    is_label = xp.astype(labels[:, None] == classes[None, :], logits.dtype)
    shifted = logits - xp.max(logits, axis=1, keepdims=True)
    exponentials = xp.exp(shifted)
    total = xp.sum(exponentials, axis=1, keepdims=True)
    value = xp.sum(weights[:, None] * is_label * (xp.log(total) - shifted))
    return value, weights[:, None] * (exponentials / total - is_label)


@public
def classification(model: Classifier, x: Array, labels: Any, *, weights: Array | None = None, check: bool = True) -> Loss:
    """Return the cross-entropy of a classifier on x (batch, *event) with integer `labels` (batch,), and its gradient.

    Raises: ShapeError, DTypeError, NonFiniteError.

    >>> import numpy as np, iresnet_ref as ir
    >>> model = Classifier.with_zero_head([ir.ResidualBlock(ir.mlp((2, 8, 2)))], 3)
    >>> loss = classification(model, np.eye(2), np.asarray([0, 2]))
    >>> bool(abs(loss.value - np.log(3.0)) < 1e-12)
    True
    """
    model.require(x, check=False)
    _require_labels(labels, x.shape[0], model.bias.shape[0], check, x=x, weights=weights)
    record = model.steps.record(x, None)
    logits = model.logits(flatten_events(record.value, x.ndim - 1))
    value, logits_bar = _cross_entropy(logits, labels, _weights(x, weights))
    return Loss(value, model.pullback_from(record, logits_bar)[1])


@public
def hybrid(
    flow: Flow,
    x: Array,
    labels: Any,
    *,
    density: float = 1.0,
    weights: Array | None = None,
    label_weights: Array | None = None,
    options: Options | None = None,
    step: int = 0,
    check: bool = True,
) -> Loss:
    """Return −Σ_b (λ a_b log p(x_b) + w_b log p(y_b | x_b)) in nats and its gradient: a density and a classifier in one network.

    λ = `density`; a = `weights` and w = `label_weights` (batch,), default 1/batch; the base is a `GaussianMixture` with one
    component for each class, which makes p(y | x) the softmax of a linear function of F(x). With λ = 1 and a = w it is the
    joint likelihood −Σ a_b log p(x_b, y_b). A row without a label has w_b = 0 and any label. With λ = 0 no
    log-determinant is computed: cross-entropy alone. The blocks run once forward and once back.
    Limits: the softmax is taken relative to its largest entry: no likelihood overflows.

    Raises: as `maximum_likelihood` and `cross_entropy`; DTypeError for another base; ValueError unless 0 ≤ λ < ∞.
    Reference: [C19] §5.4; Nalisnick et al. 2019, arXiv 1902.02767, eq. 5.

    >>> import numpy as np, iresnet_ref as ir
    >>> base = ir.densities.GaussianMixture(np.asarray([[-1.0, 0.0], [1.0, 0.0]]), np.zeros(2), np.zeros(2))
    >>> flow = ir.Flow([ir.ResidualBlock(ir.mlp((2, 8, 2)))], base)
    >>> loss = hybrid(flow, np.eye(2), np.asarray([1, 0]), density=0.1)
    >>> sorted(loss.gradients)[-3:]
    ['base.log_scale', 'base.logits', 'base.means']
    """
    flow.steps.require(x, "x", check=False, weights=weights, label_weights=label_weights)
    require_alike(x, flow.base.like, "x")
    if not isinstance(flow.base, GaussianMixture):
        raise DTypeError(f"hybrid: expected a flow whose base is a GaussianMixture, got {type(flow.base).__name__}; try base=")
    if not 0.0 <= density < math.inf:
        raise ValueError(f"hybrid: expected 0 ≤ density < inf, got {density}; try 1/d, d the dimensions of an event")
    classes = flow.base.logits.shape[0]
    _require_labels(labels, x.shape[0], classes, check, x=x, weights=weights, label_weights=label_weights)
    xp = namespace(x)
    options = _of_step(flow, options, step)
    record = flow.steps.record(x, options.shared(flow.steps.streams) if density > 0.0 else None)
    joint, a = flow.base.joint(record.value), density * _weights(x, weights)
    value, joint_bar = _cross_entropy(joint, labels, _weights(x, label_weights))
    if density > 0.0:
        value = value - xp.sum(a * (log_sum(joint)[:, 0] + record.log_det().value))
        joint_bar = joint_bar - a[:, None] * xp.exp(log_softmax(joint))
    z_bar, of_base = flow.base.joint_pullback(record.value, joint_bar)
    gradients = record.pullback(z_bar, -a if density > 0.0 else None)[1]
    return Loss(value, {**gradients, **{f"base.{name}": g for name, g in of_base.items()}})


def _of_step(flow: Flow, options: Options | None, step: int) -> Options:
    """Return the options, the flow's if there are none, with random streams that no other step of a training uses."""
    options = flow.options if options is None else options
    return options.after(step * flow.steps.streams)


def _require_labels(labels: Any, batch: int, classes: int, check: bool, **arrays: Array | None) -> None:
    """Refuse labels that are not integers in [0, classes), and arrays that are not finite: one host synchronisation."""
    require_array(labels, "labels")
    if tuple(labels.shape) != (batch,):
        raise ShapeError(f"labels: expected shape ({batch},), one for each row, got {tuple(labels.shape)}; try one integer a row")
    xp = namespace(labels)
    if not xp.isdtype(labels.dtype, "integral"):
        raise DTypeError(f"labels: expected integers, got {labels.dtype}; try xp.astype(labels, xp.int32)")
    if not check:
        return
    for name, a in arrays.items():
        if a is not None:
            require_real(a, name)
    finite = [xp.isfinite(a) for a in arrays.values() if a is not None]
    if not holds((labels >= 0) & (labels < classes), *finite):
        require_finite(**arrays)
        raise ValueError(f"labels: expected 0 to {classes - 1}, got others; number the classes from 0")


def _weights(like: Array, weights: Array | None) -> Array:
    """Return the weights of the rows, 1/batch where none are given."""
    if weights is None:
        return every_row(like, 1.0 / max(like.shape[0], 1))
    require_batch(weights, (), "weights", check=False)
    require_alike(weights, like, "weights")
    require_rows(weights, like, "weights")
    return weights
