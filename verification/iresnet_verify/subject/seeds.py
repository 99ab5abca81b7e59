"""Seeds derived from the audit's seed, a check's id and a mode."""

from __future__ import annotations

import zlib

import numpy as np


def derived_seed(seed: int, check_id: str, mode: str | None) -> int:
    """Return one integer from (seed, check id, mode), so that results do not depend on the order of checks."""
    words = [seed % 2**64, zlib.crc32(check_id.encode()), zlib.crc32((mode or "").encode())]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
