"""Whether values are at hand, calls of the host, and draws that enter a compiled program as arrays.

XLA calls back from threads that flush subnormal numbers to zero, in which nothing can be proved, and threads inherit that from the one
that starts them. So the host's calls run in a thread of their own, started with the module.

Draws are those of `ir.Probes`, the same bits on every backend: a key of JAX gives them their seed of 64 bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

import iresnet_ref as ir

_THREAD: list[ThreadPoolExecutor] = []


def _start() -> None:
    """Start the thread, in this process and again in a forked one, which has none."""
    _THREAD[:] = [ThreadPoolExecutor(1, "iresnet-host")]
    _THREAD[0].submit(int).result()


_start()
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_start)


def is_traced(*trees: Any) -> bool:
    """Return whether some array has no value yet: under jit, vmap or grad."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def on_host(function: Callable[..., Any], shapes: Any, *arguments: Any) -> Any:
    """Return function(*arguments) of arrays of NumPy, with results of these shapes; under vmap it is called once for each entry.

    In a compiled program it is called when that runs, and what it raises is a JaxRuntimeError with the text.
    """
    if not is_traced(arguments):
        first = jax.tree.leaves(arguments)[0]
        found = function(*jax.tree.map(np.asarray, arguments))
        return jax.device_put(found, first.device if isinstance(first, jax.Array) else None)

    def call(*given: Any) -> Any:
        arrays = jax.tree.map(np.asarray, given)
        return _THREAD[0].submit(function, *arrays).result()

    return jax.pure_callback(call, shapes, *arguments, vmap_method="sequential")


def words_of(key: Any) -> Any:
    """Return two random words of 32 bits of a key, the seed of its probes."""
    return jax.random.bits(key, (2,), "uint32")


def seed_of(words: Any) -> int:
    """Return the seed that two words make, the first one above."""
    high, low = (int(word) for word in np.asarray(words))
    return high << 32 | low


def probes_seed(key: Any) -> int:
    """Return the seed of the probes that a layer draws with this key: `ir.Probes(seed)` has the same on every backend.

    >>> import jax
    >>> probes_seed(jax.random.key(0)) == probes_seed(jax.random.key(0)) != probes_seed(jax.random.key(1))
    True
    """
    return seed_of(words_of(key))


@dataclass(frozen=True)
class TracedProbes(ir.Probes):
    """Probes whose seed is known when the program runs: the host draws them then."""

    words: Any = field(default=None, compare=False)

    def draw(self, like: Any) -> Any:
        """Return v of shape (count·block, *like.shape)."""

        def drawn(words: Any) -> Any:
            probes = ir.Probes(seed_of(words), self.stream, self.kind, self.count, self.block, self.first)
            return probes.draw(np.broadcast_to(np.zeros((), dtype=like.dtype), like.shape))

        shape = jax.ShapeDtypeStruct((self.count * self.block, *like.shape), like.dtype)
        return on_host(drawn, shape, self.words)
