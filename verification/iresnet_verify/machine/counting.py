"""What a piece of work does, counted while it runs with torch: products, bytes of everything else, calls, bytes that live at once.

The reference asks torch for one function of the Array API after the other, as it asks any namespace; each is counted once, by the
shapes of what goes in and comes out. On torch's `meta` device, where arrays have shapes and no numbers, a step of a model that no
memory here would hold is counted in a second. What decides on values (an inverse) is counted on the CPU, while it runs.
"""

from __future__ import annotations

import io
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from iresnet_ref.arrays import size
from iresnet_ref.training import State, fit
from iresnet_ref.training.losses import Loss

EXPENSIVE = frozenset({"exp", "expm1", "log", "log1p", "tanh", "sinh", "cosh", "sin", "cos", "atan", "erf", "sigmoid", "pow"})
REDUCING = frozenset({"sum", "mean", "amax", "amin", "max", "min", "argmax", "all", "any", "linalg_vector_norm", "prod", "cumsum",
                      "linalg_vecdot"})  # fmt: skip
MOVING = frozenset({"concat", "cat", "stack", "index_select", "flip", "reshape", "to", "clone", "permute", "asarray", "tensor"})

PIECE = 256


class Product(NamedTuple):
    """A matrix product (left, m, k)·(right, k, n), broadcast over the stacks; whether an operand is a transpose in memory."""

    left: int
    m: int
    k: int
    n: int
    right: int
    left_transposed: bool
    right_transposed: bool

    @property
    def flops(self) -> float:
        """Multiplications and additions."""
        return 2.0 * max(self.left, self.right) * self.m * self.k * self.n


@dataclass
class Count:
    """`products` and `factorisations` (name, shape) by shape class, `moved` by kind and bytes of a call, `views` that move nothing.

    `peak`: bytes of the arrays alive at once, at most, of those that were met; `uploaded` of them came from the host.
    """

    products: Counter[Product] = field(default_factory=Counter[Product])
    factorisations: Counter[tuple[str, tuple[int, ...]]] = field(default_factory=Counter[tuple[str, tuple[int, ...]]])
    moved: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])
    views: int = 0
    uploaded: int = 0
    peak: int = 0

    @property
    def flops(self) -> float:
        """Those of the products."""
        return sum(n * p.flops for p, n in self.products.items())

    @property
    def bytes(self) -> int:
        """Read and written besides products and factorisations."""
        return sum(n * b for (_, b), n in self.moved.items())

    @property
    def calls(self) -> int:
        """Functions called, views included."""
        return sum(self.products.values()) + sum(self.factorisations.values()) + sum(self.moved.values()) + self.views


def counted(work: Callable[[Callable[[], None]], object]) -> Count:
    """Return what `work(begin)` does with torch's arrays from its call of `begin()` on; the memory is counted from the start.

    >>> import torch, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), like=torch.zeros(1)))
    >>> found = counted(lambda begin: (begin(), F.branch(torch.zeros(5, 2))))
    >>> found.flops, sorted((p.m, p.k, p.n) for p in found.products)
    (320.0, [(5, 2, 8), (5, 8, 2)])
    """
    mode = _mode()
    with mode:
        work(mode.begin)
    return mode.count


def training_step(state: State, loss: Callable[[Any, int], Loss]) -> Count:
    """Return the count of one step between proofs (`certify_every` > 1), normalisation included.

    The steps are run: on the CPU, or on torch's meta device (`on_meta`), where no proof is possible and none is made.
    """

    def work(begin: Callable[[], None]) -> None:
        steps(state, loss, [begin, lambda: None])

    return counted(work)


def steps(state: State, loss: Callable[[Any, int], Loss], marks: Sequence[Callable[[], object]]) -> None:
    """Run a step before each of the marks, which are called at its end; what is proved at the end of a call of `fit` is left out."""
    left = list(marks)

    def callback(state: State, value: float) -> None:
        left.pop(0)()
        if not left:
            raise _Enough

    try:
        fit(state, loss, len(left), callback=callback)
    except _Enough:
        return


class _Enough(Exception):  # noqa: N818 - no error
    """All marks were met."""


def on_meta(thing: Any) -> Any:
    """Return a copy of anything made of torch's arrays (a model, the state of a training) on the device without numbers."""
    import torch

    packed = io.BytesIO()
    torch.save(thing, packed)
    packed.seek(0)
    return torch.load(packed, map_location="meta", weights_only=False)


def _mode() -> Any:
    """Return the mode that counts, of a class made here: torch is imported when it is needed."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Counting(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.count, self.counting, self.held = Count(), False, 0
            self.known, self.on = set[int](), Counter[int]()

        def begin(self) -> None:
            self.counting, self.count.peak = True, self.held

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = [a for a in _flat((*args, *(kwargs or {}).values())) if isinstance(a, torch.Tensor)]
            for a in given:
                self._hold(a)
            found = func(*args, **(kwargs or {}))
            made = [a for a in _flat(found) if isinstance(a, torch.Tensor)]
            for a in made:
                self._hold(a)
            if made and self.counting:
                own = {_storage(a) for a in given}
                self._note(func.__name__, given, [a for a in made if _storage(a) not in own])
            return found

        def _hold(self, a: Any) -> None:
            """Count the memory behind an array once, until the last array on it is gone."""
            if id(a) in self.known:
                return
            place, n = _storage(a), a.untyped_storage().nbytes()
            if not self.on[place]:
                self.held += n
                self.count.peak = max(self.count.peak, self.held)
            self.on[place] += 1
            self.known.add(id(a))
            weakref.finalize(a, self._release, id(a), place, n)

        def _release(self, key: int, place: int, n: int) -> None:
            self.known.discard(key)
            self.on[place] -= 1
            if not self.on[place]:
                del self.on[place]
                self.held -= n

        def _note(self, name: str, given: list[Any], fresh: list[Any]) -> None:
            count = self.count
            if name in {"matmul", "__matmul__", "__rmatmul__"}:
                count.products[_product(*(given if name != "__rmatmul__" else given[::-1]))] += 1
            elif name.startswith("linalg_") and name not in REDUCING and fresh:
                count.factorisations[name.removeprefix("linalg_"), tuple(given[0].shape)] += 1
            elif not fresh:
                count.views += 1
            else:
                written = sum(map(_bytes, fresh))
                count.moved[_kind(name, given), sum(map(_bytes, given)) + written] += 1
                if name in {"asarray", "tensor"} and not given:
                    count.uploaded += written

    return Counting()


def _flat(things: Any) -> list[Any]:
    return [b for a in things for b in _flat(a)] if isinstance(things, tuple | list) else [things]


def _storage(a: Any) -> int:
    return int(a.untyped_storage()._cdata)  # pyright: ignore[reportPrivateUsage] - the only name of memory on meta


def _bytes(a: Any) -> int:
    """Return what is read of an array: repeated entries once."""
    return min(a.numel() * a.element_size(), int(a.untyped_storage().nbytes()))


def _kind(name: str, given: list[Any]) -> str:
    if name in EXPENSIVE:
        return "function"
    if name in REDUCING:
        return "sum"
    kind = "copy" if name in MOVING else "arithmetic"
    return f"{kind} in pieces" if any(map(_in_pieces, given)) else kind


def _in_pieces(a: Any) -> bool:
    """Return whether an array lies in memory in pieces of fewer than `PIECE` bytes: rows of shifted images, transposes."""
    run = a.element_size()
    for n, stride in zip(reversed(a.shape), reversed(a.stride()), strict=True):
        if n > 1 and stride not in {0, run // a.element_size()}:
            return bool(run < PIECE)
        run *= n if stride else 1
    return False


def _product(a: Any, b: Any) -> Product:
    m = a.shape[-2] if a.ndim > 1 else 1
    n = b.shape[-1] if b.ndim > 1 else 1
    return Product(size(tuple(a.shape[:-2])), m, a.shape[-1], n, size(tuple(b.shape[:-2])), _turned(a), _turned(b))


def _turned(a: Any) -> bool:
    return bool(a.ndim > 1 and a.shape[-1] > 1 and a.shape[-2] > 1 and a.stride(-2) == 1)
