"""Values of evidence as JSON can hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """The value as builtins (dict, list, str, int, float, bool, None); what has no such form becomes its text.

    Arrays of any framework become nested lists; nothing here imports the framework.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if hasattr(value, "__array__"):
        listed = np.asarray(value).tolist()
        return plain(listed) if type(listed) in (bool, int, float, str, list) else str(listed)
    kinds = (k for k in (bool, int, float, str) if isinstance(value, k))
    return next(kinds, str)(value)
