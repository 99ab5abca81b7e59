"""Counter-based random numbers: the same bits for the same (seed, stream, row, probe) on every backend and in every batch.

Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC 2011) with the 64-bit seed as
key and the counter (row, probe, stream, block), drawn on the host in NumPy unsigned integers and transferred. A row's draws
depend neither on the backend nor on the other rows. No global random state is read or written.

Hadamard probes are columns of the Sylvester matrix H_{rc} = (−1)^{popcount(r & c)} of order 2^⌈log₂ d⌉, cut to d rows, a
random set of them for each replicate, with a random sign for each row of H: v = s ∘ H_c. The signs alone give E[vvᵀ] = I, and
all columns together Σ_c vvᵀ/2^⌈log₂ d⌉ = I for every choice of the signs, which makes every trace exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from iresnet_ref.arrays import Array, changed, from_host, public, size

ProbeKind = Literal["rademacher", "gaussian", "hadamard"]
Words = npt.NDArray[np.uint32]

_MULTIPLIERS = np.asarray([0xD2511F53, 0xCD9E8D57], dtype=np.uint64)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_LENGTH_BLOCK = 0xFFFFFFFF
"""The block of the counter reserved for series lengths; probes use 0, 1, 2, …"""
_COLUMNS_ROW = 0xFFFFFFFF
"""The row of the counter reserved for the Hadamard columns of a replicate, which all rows of the batch share."""
PILOT_STREAM = 0x80000000
"""A pilot draws from the stream with its highest bit flipped."""


def philox(counter: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike, npt.ArrayLike], key: int) -> tuple[Words, Words, Words, Words]:
    """Return the four 32-bit words of Philox 4x32-10 at each counter (four broadcastable arrays below 2³²), 64-bit key.

    >>> [hex(int(w)) for w in philox((0, 0, 0, 0), 0)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = (np.asarray(c, dtype=np.uint32) for c in counter)
    shape = np.broadcast(c0, c1, c2, c3).shape
    even, odd = (np.empty((2, *shape), dtype=np.uint32) for _ in range(2))  # words 0 and 2, words 1 and 3
    even[0], odd[0], even[1], odd[1] = c0, c1, c2, c3
    ones = (1,) * len(shape)
    multipliers = _MULTIPLIERS.reshape(2, *ones)
    for keys in _round_keys(key).reshape(10, 2, *ones):
        halves = (even * multipliers).astype("<u8", copy=False)[..., None].view("<u4")  # (low, high)
        even, odd = halves[::-1, ..., 1] ^ odd ^ keys, halves[::-1, ..., 0]
    return even[0], odd[0], even[1], odd[1]


@lru_cache(maxsize=64)
def _round_keys(key: int) -> Words:
    """Return the two words of the key of each round."""
    return np.asarray([[(key >> 32 * i) + r * _WEYL[i] & _MASK for i in range(2)] for r in range(10)], dtype=np.uint32)


@public
@dataclass(frozen=True)
class Probes:
    """Random probes v with E[vvᵀ] = I, and series lengths, as pure functions of (seed, stream, row, replicate).

    `count` independent replicates are drawn for each row, each with its own series length and its own `block` of probes
    whose estimates are averaged: the standard error comes from the replicates. `kind` "rademacher" (signs) or "gaussian"
    draws the probes of a block independently; "hadamard" draws orthogonal signs: with n = 2^⌈log₂ d⌉ a block of m has
    (n − m)/((n − 1)m) times the variance of one sign probe, which is 0 for m = n, the largest block.
    Use another `stream` for another independent set of draws, and `first` to go on where a run stopped: replicates are
    numbered first, …, first + count − 1.
    Limits: signs, lengths and uniforms are the same bits in every dtype; Gaussians are computed in float64 and rounded to it.
    Shapes: `draw(like)` has (count·block, *like.shape). Raises: ValueError for counts, seeds or streams out of
    range, and a Hadamard block too large. Reference: Hutchinson, *A stochastic estimator of the trace*, 1990.

    >>> import numpy as np
    >>> Probes(seed=1).draw(np.zeros((2, 3))).tolist() == Probes(seed=1).draw(np.zeros((5, 3)))[:, :2].tolist()
    True
    >>> v = Probes(kind="hadamard", block=4).draw(np.zeros((1, 3)))[:, 0, :]
    >>> (v.T @ v / 4).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    seed: int = 0
    stream: int = 0
    kind: ProbeKind = "rademacher"
    count: int = 1
    block: int = 1
    first: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(ProbeKind):
            raise ValueError(f"probes: expected kind 'rademacher', 'gaussian' or 'hadamard', got {self.kind!r}; try 'rademacher'")
        if self.count < 1 or self.block < 1 or not 0 <= self.seed < 2**64 or not 0 <= self.stream < 2**32:
            raise ValueError(
                "probes: expected count ≥ 1, block ≥ 1, 0 ≤ seed < 2**64 and 0 ≤ stream < 2**32, got "
                f"{self.count}, {self.block}, {self.seed}, {self.stream}; try Probes(seed=0, count=16)"
            )
        if self.first < 0 or (self.first + self.count) * self.block > 2**32:
            raise ValueError(
                f"probes: expected first ≥ 0 and at most 2**32 probes of a stream, got first={self.first}, {self.count}·{self.block}; "
                "try another stream"
            )

    @public
    def on_stream(self, stream: int) -> Probes:
        """Return the same probes on another stream."""
        made = changed(self, stream=stream)
        made.__post_init__()
        return made

    def part(self, start: int, stop: int) -> Probes:
        """Return replicates start, …, stop − 1 of this set: the same draws."""
        return self if (start, stop) == (0, self.count) else replace(self, first=self.first + start, count=stop - start)

    def draw(self, like: Array) -> Array:
        """Return v of shape (count·block, *like.shape), block by block, in the dtype and on the device of `like`.

        Raises ValueError for a Hadamard block larger than 2^⌈log₂ d⌉.
        """
        batch, event = like.shape[0], tuple(like.shape[1:])
        make = {"rademacher": self.signs, "gaussian": self.gaussians, "hadamard": self.orthogonal_signs}[self.kind]
        return from_host(make(batch, size(event)).reshape(self.count * self.block, batch, *event), like)

    def words(self, batch: int, n: int) -> Words:
        """Return n random 32-bit words for each (probe, row), shape (count·block, batch, n)."""
        first, probes, blocks = self.first * self.block, self.count * self.block, -(-n // 4)
        counter = (
            np.arange(batch)[None, :, None],
            np.arange(first, first + probes)[:, None, None],
            np.uint32(self.stream),
            np.arange(blocks)[None, None, :],
        )
        return np.stack(philox(counter, self.seed), axis=-1).reshape(probes, batch, 4 * blocks)[..., :n]

    def signs(self, batch: int, n: int) -> npt.NDArray[np.float64]:
        """Return n fair signs for each (probe, row): the bits of the words, lowest first."""
        words = self.words(batch, -(-n // 32))
        bits = words[..., None] >> np.arange(min(n, 32), dtype=np.uint32) & np.uint32(1)
        return 1.0 - 2.0 * bits.reshape(*bits.shape[:2], bits.shape[2] * bits.shape[3])[..., :n].astype(np.float64)

    def orthogonal_signs(self, batch: int, n: int) -> npt.NDArray[np.float64]:
        """Return n signs for each (probe, row), orthogonal within a block before they are cut to n: s ∘ H_c."""
        order = 1 << (n - 1).bit_length() if n > 1 else 1
        if self.block > order:
            raise ValueError(
                f"probes: expected a Hadamard block of at most 2^⌈log₂ d⌉ = {order} columns for d = {n}, got {self.block}; "
                f"try block={order}, which makes traces exact, or a larger count"
            )
        columns = self.columns(order)
        parity = np.bitwise_count(np.arange(n, dtype=np.uint32) & columns[..., None].astype(np.uint32)) & np.uint8(1)
        hadamard = 1.0 - 2.0 * parity  # (count, block, n)
        signs = replace(self, block=1).signs(batch, n)  # (count, batch, n)
        return (hadamard[:, :, None, :] * signs[:, None, :, :]).reshape(self.count * self.block, batch, n)

    def columns(self, order: int) -> npt.NDArray[np.int64]:
        """Return `block` different columns below `order` for each replicate, shape (count, block), all sets alike."""
        counter = (
            np.uint32(_COLUMNS_ROW),
            np.arange(self.first, self.first + self.count)[:, None],
            np.uint32(self.stream),
            np.arange(-(-order // 2))[None, :],
        )
        w = [word.astype(np.uint64) for word in philox(counter, self.seed)]
        keys = np.stack((w[0] << np.uint64(32) | w[1], w[2] << np.uint64(32) | w[3]), axis=-1)
        return np.argsort(keys.reshape(self.count, -1)[:, :order], axis=-1, kind="stable")[:, : self.block]

    def uniforms(self, batch: int, n: int) -> npt.NDArray[np.float64]:
        """Return n uniforms ((b >> 9)·2 + 1)/2²⁴ for each (probe, row): never 0 or 1, exact in float32."""
        return ((self.words(batch, n) >> np.uint32(9)).astype(np.float64) * 2.0 + 1.0) / 2.0**24

    def gaussians(self, batch: int, n: int) -> npt.NDArray[np.float64]:
        """Return n standard normals for each (probe, row), by Box–Muller in float64 on the host."""
        pairs = -(-n // 2)
        w = self.words(batch, 4 * pairs).astype(np.float64)
        radius = (w[..., 0::4] * 2.0**32 + w[..., 1::4] + 0.5) / 2.0**64  # in (0, 1]: log is finite
        angle = (w[..., 2::4] * 2.0**32 + w[..., 3::4]) * (2.0 * np.pi / 2.0**64)
        r = np.sqrt(-2.0 * np.log(radius))
        return np.stack((r * np.cos(angle), r * np.sin(angle)), axis=-1).reshape(*r.shape[:2], 2 * pairs)[..., :n]

    def lengths(self, batch: int, thresholds: npt.NDArray[np.uint64], n_exact_terms: int) -> npt.NDArray[np.int64]:
        """Return N for each (replicate, row), shape (count, batch): N = n_exact_terms + #{i : draw < thresholds[i]}, 64-bit draws.

        So P(N ≥ n_exact_terms + 1 + i) = thresholds[i]/2⁶⁴ exactly, for decreasing thresholds.
        """
        counter = (
            np.arange(batch)[None, :],
            np.arange(self.first, self.first + self.count)[:, None],
            np.uint32(self.stream),
            np.uint32(_LENGTH_BLOCK),
        )
        high, low, _, _ = philox(counter, self.seed)
        draw = high.astype(np.uint64) << np.uint64(32) | low.astype(np.uint64)
        ascending = thresholds[::-1]
        return n_exact_terms + ascending.size - np.searchsorted(ascending, draw, side="right")
