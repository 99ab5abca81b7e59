"""Blocks and flows as pytrees of JAX: compiled values, the reference's own gradients, weights divided by proved norms.

>>> import jax, jax.numpy as jnp
>>> from iresnet_backends import jax_layers
>>> block = jax_layers.ResidualBlock((2, 32, 32, 2), lipschitz=0.9)
>>> y, log_det = jax.jit(lambda block, x: block(x))(block, jnp.zeros((5, 2)))
>>> x, log_det_of_inverse = block.inverse(y)
>>> block.certificate().bound <= 0.9
True

`ResidualBlock` is F = id + g; `Flow` a whole `ir.Flow` with its base; `Layer` any bijection of the reference. To import this
package makes pytrees of the reference's own values and results as well (`register` does so for layers of your own).
"""

from iresnet_backends.jax_layers.host import probes_seed
from iresnet_backends.jax_layers.interfaces import as_distrax, as_flowjax
from iresnet_backends.jax_layers.layers import Flow, Layer, ResidualBlock
from iresnet_backends.jax_layers.pytrees import register

__all__ = ["Flow", "Layer", "ResidualBlock", "as_distrax", "as_flowjax", "probes_seed", "register"]
