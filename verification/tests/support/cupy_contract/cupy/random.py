from typing import Any

import numpy as np

from cupy._core import current, wrap


class Generator:
    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def standard_normal(self, size: Any = None, dtype: Any = float) -> Any:
        return wrap(np.asarray(self._generator.standard_normal(size, dtype)), current())


def default_rng(seed: Any = None) -> Generator:
    return Generator(np.random.default_rng(seed))
