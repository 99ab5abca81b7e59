from typing import Any

import numpy as np

from cupy._core import build

build("linalg", np.linalg, globals())


def lstsq(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError
