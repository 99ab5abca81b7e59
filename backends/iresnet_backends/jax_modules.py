"""Weights of JAX, and stacks of layers of Equinox and Flax, as a branch of the reference."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import iresnet_ref as ir
from iresnet_backends.errors import BackendUnavailableError, ModuleError
from iresnet_backends.reading.comparison import require_agreement
from iresnet_backends.reading.forward_graph import joined
from iresnet_ref.arrays import from_host, is_short, to_host
from iresnet_ref.errors import ShapeError


def from_jax(
    parts: Any,
    *,
    event_shape: Sequence[int] | None = None,
    variables: Mapping[str, Any] | None = None,
    against: Callable[[Any], Any] | None = None,
    like: Any = None,
) -> ir.Branch:
    """Return g with the weights of a list of (weight, bias, activation), y = φ(W x + b), or of a stack of Equinox or Flax layers.

    Understood, by exact type: Equinox's Linear, MLP, Sequential, Conv, average pooling, Lambda, Identity, Dropout; Flax nnx's
    Linear, Conv, BatchNorm, Dropout, Sequential; the same of Flax linen, with `variables`; the activations of jax.nn and jnp.tanh, jnp.sin,
    functools.partial of them, and names. Convolutions of stride 1 that keep their image are `Conv`, all others the matrix of the
    operator on its events, up to 4096 × 4096. Flax has channels last: so have the events. A module of your own is given as the list
    of its layers and functions, and itself as `against`, a function of batches.

    The branch is compared with the layers in evaluation, or with `against`, on probes of six sizes before it is returned. These must
    be traceable for any number of rows, and may look at nothing but their input and what stays the same: no state that a call changes,
    no clock, no tracer. The audit reads functions of JAX by their jaxpr instead, without a list of types.
    Raises: ModuleError naming the place of what is not understood, or showing both numbers where they differ; ShapeError where
    widths do not fit or the ends differ; BackendUnavailableError without JAX.

    >>> import jax, jax.numpy as jnp
    >>> w = jnp.asarray([[0.5, 0.1], [0.0, 0.3]])
    >>> g = from_jax([(w, jnp.zeros(2), jax.nn.gelu), (w, None, None)])
    >>> [layer.name for layer in g.layers]
    ['dense 2→2', 'gelu tanh', 'dense 2→2', 'identity']
    """
    try:
        import jax
    except ImportError as missing:
        raise BackendUnavailableError(
            'from_jax: the package jax cannot be imported; try pip install "iresnet-ref[jax]"'
        ) from missing
    from iresnet_backends.reading.jax_function import traced
    from iresnet_backends.reading.jax_layers import Reader, arrays

    values, variables = _values(parts), variables or {}
    weights = [a for a in arrays((values, variables)) if a.ndim]
    if not weights:
        raise ModuleError(
            "from_jax: expected at least one layer with weights, got none; give [(weight, bias, activation), …]"
        )
    if not all(bool(jax.numpy.isfinite(a).all()) for a in weights):
        raise ModuleError("from_jax: expected finite weights, got NaN or infinity")
    if is_short(weights[0]):
        raise ModuleError(f"from_jax: expected float32 or float64 weights, got {weights[0].dtype}; try them as float32")
    start = _event_shape(parts, weights) if event_shape is None else tuple(event_shape)
    with jax.default_matmul_precision("highest"):
        reader = Reader(start, weights[0], variables)
        reader.read(parts, "the top")
        if reader.event != start:
            raise ShapeError(
                f"from_jax: expected a branch whose ends agree, for x + g(x), got {start} → {reader.event}"
            )
        branch = ir.Branch(tuple(joined(reader.layers)), start)
        compute = _computed(parts, variables) if against is None else against
        traced(compute, start, weights[0].dtype)  # what looks at more than its input is the same on probes, and elsewhere another map
        # on the host, in the same arithmetic: JAX would compile every operation of the running error
        host = branch.with_parameters({k: to_host(p) for k, p in branch.parameters().items()})
        require_agreement(host, lambda x: compute(jax.numpy.asarray(x)), "from_jax")
    if like is None:
        return branch
    return branch.with_parameters({k: from_host(to_host(p), like) for k, p in branch.parameters().items()})


def _values(parts: Any) -> Any:
    """Return a tree with the arrays of the parts."""
    nnx = sys.modules.get("flax.nnx")
    if isinstance(parts, list | tuple):
        return [_values(part) for part in parts]
    return nnx.state(parts) if nnx is not None and isinstance(parts, nnx.Module) else parts


def _event_shape(parts: Any, weights: list[Any]) -> tuple[int, ...]:
    """Return the inputs of the first matrix, where a triple or an Equinox layer says that it is (out, in)."""
    eqx, nnx = sys.modules.get("equinox"), sys.modules.get("flax.nnx")
    first: Any = parts
    while True:
        if isinstance(first, tuple) and len(first) == 3 and getattr(first[0], "ndim", 0) == 2:
            return (first[0].shape[1],)
        layer = cast("Any", first)
        if (eqx is not None and type(layer) is eqx.nn.Linear) or (nnx is not None and type(layer) is nnx.Linear):
            return (layer.in_features,)
        inner = first if isinstance(first, list | tuple) else getattr(first, "layers", None)
        if not inner:
            raise ShapeError(f"from_jax: expected event_shape= for {type(parts).__name__}, which has no width of its own, got None")
        first = inner[0]


def _computed(parts: Any, variables: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return what the parts compute of a batch, in evaluation."""
    import jax

    from iresnet_backends.reading.jax_layers import activation_of

    eqx, nnx, linen = (sys.modules.get(name) for name in ("equinox", "flax.nnx", "flax.linen"))
    if isinstance(parts, tuple) and len(parts) == 3:
        weight, bias, activation = parts
        after = _computed("identity" if activation is None else activation, variables)
        return lambda x: after(x @ jax.numpy.asarray(weight).T + (0.0 if bias is None else jax.numpy.asarray(bias)))
    if isinstance(parts, list | tuple):
        steps = [_computed(part, variables) for part in parts]

        def all_of_them(x: Any) -> Any:
            for step in steps:
                x = step(x)
            return x

        return all_of_them
    if eqx is not None and isinstance(parts, eqx.Module):
        return jax.vmap(eqx.nn.inference_mode(parts))
    if nnx is not None and isinstance(parts, nnx.Module):
        evaluated = nnx.clone(parts)
        evaluated.eval()
        return evaluated
    if linen is not None and isinstance(parts, linen.Module):
        return lambda x: parts.apply(variables, x)
    activation = activation_of(parts)
    named: Any = activation.value if isinstance(parts, str) and activation is not None else parts
    return named


__all__ = ["from_jax"]
