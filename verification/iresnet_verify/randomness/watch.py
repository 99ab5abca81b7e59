"""One random draw, the watch that asks about each, and how a function is replaced until a stack is closed."""

from __future__ import annotations

import random as _python_random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from iresnet_verify.randomness.distributions import Distribution

Values = npt.NDArray[Any]


Library = Literal["torch", "numpy", "random", "subject"]


@dataclass(frozen=True)
class Draw:
    """One call of a generator: where in the sequence, by which name, the shape, and the law of its entries."""

    index: int
    name: str
    shape: tuple[int, ...]
    distribution: Distribution
    library: Library
    value: Values = field(repr=False, compare=False)
    """What the generator gave, as a host array."""


Answer = Callable[[Draw], "npt.ArrayLike | None"]


def keep(draw: Draw) -> None:
    """Replace nothing."""


class Watch:
    """Asks `answer` about every draw; `draws` records them."""

    def __init__(self, answer: Answer = keep, subject: Any = None) -> None:
        self.answer, self.subject = answer, subject
        self.draws: list[Draw] = []
        self._busy = False

    def ask(self, name: str, distribution: Distribution, out: Values, library: Library) -> npt.ArrayLike | None:
        """Record a draw and return its replacement, or None to keep it.

        Draws made inside a draw, and those that `answer` makes itself, are not asked for.
        """
        if self._busy:
            return None
        draw = Draw(len(self.draws), name, tuple(out.shape), distribution, library, out)
        self.draws.append(draw)
        return self.inside(self.answer, draw)

    def inside(self, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a real generator without asking about the draws that it makes itself."""
        before, self._busy = self._busy, True
        try:
            return real(*args, **kwargs)
        finally:
            self._busy = before


def patch(stack: ExitStack, holder: Any, name: str, value: Any) -> None:
    """Set an attribute until the stack is closed."""
    before = holder.__dict__[name] if isinstance(holder, type) else getattr(holder, name)
    setattr(holder, name, value)
    stack.callback(setattr, holder, name, before)


_PYTHON = (
    "random", "gauss", "normalvariate", "uniform", "randint", "randrange", "choice", "choices", "getrandbits", "expovariate",
    "shuffle", "sample",
)


def patch_python(watch: Watch, stack: ExitStack) -> None:
    """Watch the functions of the module `random`, as draws of unknown law."""
    for name in _PYTHON:
        real = getattr(_python_random, name)

        def watched(*args: Any, _real: Callable[..., Any] = real, _name: str = f"random.{name}", **kwargs: Any) -> Any:
            out = watch.inside(_real, *args, **kwargs)
            watch.ask(_name, Distribution("other"), np.asarray(0.0 if out is None else out, dtype=object), "random")
            return out

        patch(stack, _python_random, name, watched)
