"""Interception of random draws: see every draw that a black box makes, and replace those one wants to.

    with Interception(answer, subject): value = box(x)

`answer(draw)` is asked once per draw, in order; it returns the values to use instead, or None to keep what the generator
gave. The generator is always asked first, so that shape, dtype and device are the box's own and the draws that are kept
stay the ones its seed gives.

Seen: the reference's `Probes`; torch factories, methods and functions (a `TorchFunctionMode` also sees names bound at
import); the sampler of `torch.distributions.Geometric`; functions of `numpy.random` and of `random`; NumPy generators
made under the interception, bound in the box's modules, or held by its objects and closures (those are exchanged for
watched ones on the same bit generator, and put back).
Not seen: generators hidden in C extensions or in containers, compiled code, JAX keys, draws in other threads or processes.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from iresnet_verify.randomness.watch import Answer, Watch, keep


class Interception(Watch):
    """A context manager that asks `answer` about every draw; `draws` records them. Not reentrant."""

    def __init__(self, answer: Answer = keep, subject: Any = None) -> None:
        super().__init__(answer, subject)
        self._stack = ExitStack()

    def __enter__(self) -> Interception:
        from iresnet_verify.randomness import interception_numpy

        with ExitStack() as stack:
            interception_numpy.install(self, stack)
            if "torch" in sys.modules:
                from iresnet_verify.randomness import interception_torch

                interception_torch.install(self, stack)
            if "iresnet_ref.probes" in sys.modules:
                from iresnet_verify.randomness import interception_reference

                interception_reference.install(self, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

