"""Layers as bijections of other packages for JAX. All maps lead from data to the base, as in `ir.Flow`.

flowjax bijections take one event without a batch, distrax bijectors any number of batch axes. Neither hands on keys: a random
log-determinant draws from the probes of the layer's `options`.
"""

from __future__ import annotations

import importlib
import math
from functools import cache
from typing import Any

import jax.numpy as jnp

import iresnet_ref as ir
from iresnet_backends.errors import BackendUnavailableError
from iresnet_backends.jax_layers.layers import Layer


def as_flowjax(layer: Layer) -> Any:
    """Return the layer as a bijection of flowjax: `Transformed(base, Invert(as_flowjax(layer)))` is its density.

    It is a module of Equinox whose leaves are the layer's. Raises: BackendUnavailableError without flowjax.

    >>> import iresnet_ref as ir
    >>> from iresnet_backends import jax_layers
    >>> bijection = as_flowjax(jax_layers.ResidualBlock((2, 8, 2)))  # doctest: +SKIP
    >>> bijection.shape  # doctest: +SKIP
    (2,)
    """
    return _flowjax()(layer)


def as_distrax(layer: Layer) -> Any:
    """Return the layer as a bijector of distrax: `Transformed(base, Inverse(as_distrax(layer)))` is its density.

    It is a pytree whose leaves are the layer's. Raises: BackendUnavailableError without distrax.

    >>> import iresnet_ref as ir
    >>> from iresnet_backends import jax_layers
    >>> bijector = as_distrax(jax_layers.ResidualBlock((2, 8, 2)))  # doctest: +SKIP
    >>> bijector.event_ndims_in  # doctest: +SKIP
    1
    """
    return _distrax()(layer)


def _with_own_draws(layer: Layer) -> dict[str, ir.Options]:
    """Return the options of the layer, if it has any, as those of a call: their probes are taken as they are."""
    return {} if layer.options is None else {"options": layer.options}


@cache
def _flowjax() -> Any:
    try:
        equinox: Any = importlib.import_module("equinox")
        bijections: Any = importlib.import_module("flowjax.bijections")
    except ImportError as missing:
        raise BackendUnavailableError(
            f"as_flowjax: the package {missing.name or 'flowjax'} cannot be imported; try pip install flowjax"
        ) from missing

    class Bijection(bijections.AbstractBijection):  # type: ignore[misc, name-defined, unused-ignore]  # untyped
        """A layer on one event."""

        layer: Layer
        shape: tuple[int, ...] = equinox.field(static=True)
        cond_shape: tuple[int, ...] | None = equinox.field(static=True)

        def __init__(self, layer: Layer) -> None:
            self.layer, self.shape, self.cond_shape = layer, tuple(layer.event_shape), None

        def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Any, Any]:
            """Return (y, log_det)."""
            del condition
            y, log_det = self.layer(x[None], **_with_own_draws(self.layer))
            return y[0], log_det[0]

        def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Any, Any]:
            """Return (x, log_det of the inverse)."""
            del condition
            x, log_det = self.layer.inverse(y[None], **_with_own_draws(self.layer))
            return x[0], log_det[0]

    return Bijection


@cache
def _distrax() -> Any:
    try:
        distrax: Any = importlib.import_module("distrax")
    except ImportError as missing:
        raise BackendUnavailableError(
            f"as_distrax: the package {missing.name or 'distrax'} cannot be imported; try pip install distrax"
        ) from missing

    class Bijector(distrax.Bijector):  # type: ignore[misc, name-defined, unused-ignore]  # untyped
        """A layer on any number of batch axes."""

        def __init__(self, layer: Layer) -> None:
            super().__init__(event_ndims_in=len(layer.event_shape), event_ndims_out=len(layer.steps.out_shape))
            self.layer = layer

        def forward_and_log_det(self, x: Any) -> tuple[Any, Any]:
            """Return (y, log_det)."""
            return _batched(self.layer, x, len(self.layer.event_shape), _with_own_draws(self.layer))

        def inverse_and_log_det(self, y: Any) -> tuple[Any, Any]:
            """Return (x, log_det of the inverse)."""
            return _batched(self.layer.inverse, y, len(self.layer.steps.out_shape), _with_own_draws(self.layer))

    return Bijector


def _batched(function: Any, x: Any, event: int, options: dict[str, ir.Options]) -> tuple[Any, Any]:
    """Return function(x) of one batch axis, for any number of them in front of an event of so many axes."""
    batch = x.shape[: x.ndim - event]
    y, log_det = function(jnp.reshape(x, (math.prod(batch), *x.shape[len(batch) :])), **options)
    return jnp.reshape(y, (*batch, *y.shape[1:])), jnp.reshape(log_det, batch)
