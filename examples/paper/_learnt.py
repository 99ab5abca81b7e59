"""What a model of a density gives back, and how long it is trained: the same for ours and for its peers."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from _planar import Points

WARM_UP = 20
CLIP = 10.0
"""Of the gradient's norm."""


@dataclass(frozen=True)
class Learnt:
    """A trained density of `parameters` numbers, after `steps` steps in `seconds` of CPU time.

    `sample(n, seed)` returns points and how many times the network was evaluated for each of them, in the mean.
    """

    parameters: int
    steps: int
    seconds: float
    log_prob: Callable[[Points], Points]
    sample: Callable[[int, int], tuple[Points, float]]
    lipschitz: float = math.nan


def rates(options: argparse.Namespace) -> Iterator[float]:
    """Yield the learning rate of each step until `options.steps` are done or `options.seconds` of CPU time are spent.

    It warms up over a few steps and then follows half a cosine from `options.learning_rate` to 1/300 of it, over the share of
    the budget that is spent. CPU time of this process, not the clock's: what else the machine does is charged to nobody.
    """
    begun = time.process_time()
    for step in range(options.steps):
        spent = max(step / options.steps, (time.process_time() - begun) / max(options.seconds, 1e-9))
        if spent >= 1.0:
            return
        fall = max(1.0 / 300.0, 0.5 * (1.0 + math.cos(math.pi * spent)))
        yield options.learning_rate * fall * min(1.0, (step + 1) / WARM_UP)
