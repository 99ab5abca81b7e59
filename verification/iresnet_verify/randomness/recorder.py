"""One random draw, the recorder of draws that may replace each, and `patch`, which replaces a function until a stack is closed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt

from iresnet_verify.randomness.distributions import Distribution

Values = npt.NDArray[Any]
Library = Literal["torch", "numpy", "random", "subject"]


@dataclass(frozen=True)
class Draw:
    """One call of a generator: its place in the sequence, its name, its shape, and the distribution of its entries."""

    index: int
    name: str
    shape: tuple[int, ...]
    distribution: Distribution
    library: Library
    value: Values = field(repr=False, compare=False)
    """What the generator returned, as a host array."""
    seeds: list[str] = field(default_factory=list, compare=False)
    """Recorded generators that this number seeded: what comes of it is recorded there."""


COINCIDENCE = 2**31
"""Two integers at least as large are equal because one is the other."""
ReplaceDraw = Callable[[Draw], "npt.ArrayLike | None"]
"""draw -> the values to use instead, or None to keep the generator's."""


def keep_draw(draw: Draw) -> None:
    """Keep the generator's values."""


class DrawRecorder:
    """Records every draw in `draws` and lets `replace` substitute its values."""

    def __init__(self, replace: ReplaceDraw = keep_draw, subject: Any = None) -> None:
        self.replace, self.subject = replace, subject
        self.draws: list[Draw] = []
        self._busy = False

    def record(self, name: str, distribution: Distribution, out: Values, library: Library) -> npt.ArrayLike | None:
        """Record a draw and return its replacement, or None to keep it.

        Draws made inside a draw, and those that `replace` makes itself, are not recorded.
        """
        if self._busy:
            return None
        draw = Draw(len(self.draws), name, tuple(out.shape), distribution, library, out)
        self.draws.append(draw)
        return self.unrecorded(self.replace, draw)

    def seeded(self, seed: int, generator: str) -> None:
        """Note that a draw of this call, a single integer that no coincidence gives, is the seed of a generator recorded itself."""
        for draw in self.draws:
            if seed >= COINCIDENCE and draw.shape == () and draw.value.dtype.kind in "iu" and int(draw.value) == seed:
                draw.seeds.append(generator)

    def unrecorded(self, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a generator without recording the draws that it makes itself."""
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
