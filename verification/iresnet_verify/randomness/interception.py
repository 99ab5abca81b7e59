"""Interception of random draws: record every draw that a black box makes, and replace any of them.

    with Interception(replace, subject): value = f(x)

`replace(draw)` is called once per draw, in order; it returns the values to use instead, or None to keep what the generator
returned. The generator is always called first, so that shape, dtype and device are the subject's own and the draws that are
kept are those of its seed.

Recorded: the reference's `Probes`; torch factories, methods and functions (a `TorchFunctionMode` also sees names bound at
import); the sampler of `torch.distributions.Geometric`; functions of `numpy.random` and of `random`; NumPy generators
made under the interception, bound in the subject's modules, or held by its objects and closures (those are exchanged for
recording ones on the same bit generator, and put back).
Not recorded: generators hidden in C extensions or in containers, compiled code, JAX keys, draws in other threads or processes.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from iresnet_verify.randomness.recorder import DrawRecorder, ReplaceDraw, keep_draw


class Interception(DrawRecorder):
    """A recorder of draws as a context manager, which installs it in every library that is loaded. Not reentrant."""

    def __init__(self, replace: ReplaceDraw = keep_draw, subject: Any = None) -> None:
        super().__init__(replace, subject)
        self._stack = ExitStack()

    def __enter__(self) -> Interception:
        from iresnet_verify.randomness import interception_numpy, interception_python

        with ExitStack() as stack:
            interception_numpy.install(self, stack)
            interception_python.install(self, stack)
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
