"""What counted work will take on a backend, from rates that are measured there in seconds: the model of cost of docs/cost-model.md.

    t = Σ t(product) + Σ t(kind, bytes) + c·calls,

t(product) the time of one matrix product of the same shapes, t(kind, bytes) that of a call of element-wise arithmetic, of a
function such as exp, of a copy, of a sum, on so many bytes, between sizes that are measured; c what the reference itself takes for
a call, from a step of a network of two neurons. Where a call returns before the device has finished (a GPU) the host works beside
it: the time is then the larger of the device's and of c·calls.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import cycle
from typing import Any

import numpy as np

import iresnet_ref as ir
from iresnet_backends import Backend
from iresnet_ref.training import Settings, State, maximum_likelihood, start
from iresnet_verify.machine import counting
from iresnet_verify.machine.counting import Count, Product

SIZES = (2**12, 2**16, 2**20, 2**24, 60 * 10**6, 70 * 10**6, 2**28)
"""Bytes of a call at which the rates of what is no product are measured; allocators take arrays above 32 MiB from the system each time."""
IN_USE = 2**26
"""Bytes of operands and results that a measured call meets in turn: more than a cache holds."""
_NUMBERS = np.random.default_rng(0).standard_normal(10007)
SHORTEST, ROUNDS = 2e-3, 3


@dataclass(frozen=True)
class Predicted:
    """Seconds, by what takes them. On a device that works by itself `calls` are the host's, beside the others."""

    products: float
    factorisations: float
    elementwise: float
    calls: float
    concurrent: bool

    @property
    def seconds(self) -> float:
        """The whole."""
        device = self.products + self.factorisations + self.elementwise
        return max(device, self.calls) if self.concurrent else device + self.calls

    def record(self) -> dict[str, float]:
        """Return what JSON gets."""
        return {**asdict(self), "seconds": self.seconds}


@dataclass(frozen=True)
class Rates:
    """What a backend takes for products, bytes and calls, measured when it is asked for; repeated questions are answered at once.

    >>> import torch, iresnet_backends
    >>> rates = Rates(iresnet_backends.get("numpy", "float32"))
    >>> product = counting.Product(1, 64, 64, 64, 1, False, False)
    >>> 0.0 < rates.product(product) < 1.0
    True
    """

    backend: Backend
    _products: dict[Product, float] = field(default_factory=dict[Product, float])
    _factorisations: dict[tuple[str, tuple[int, ...]], float] = field(default_factory=dict[tuple[str, tuple[int, ...]], float])

    @property
    def on_host(self) -> bool:
        """Whether the backend computes in the memory of this process: its time is then the processor's, else the clock's."""
        return self.backend.memory() is None

    def clock(self) -> float:
        """Return the seconds so far, the device waited for."""
        self.backend.synchronise()
        return time.process_time() if self.on_host else time.perf_counter()

    def seconds(self, work: Callable[[], object]) -> float:
        """Return those of a call, the least of a few rounds; what the first call prepares is not counted."""
        work()
        found, count = math.inf, 1
        for _ in range(ROUNDS):
            begun = self.clock()
            for _ in range(count):
                work()
            taken = self.clock() - begun
            found = min(found, taken / count)
            count = max(1, min(1000, int(SHORTEST / max(found, 1e-7))))
        return found

    def array(self, *shape: int) -> Any:
        """Return numbers of either sign."""
        return self.backend.asarray(np.resize(_NUMBERS, shape))

    def product(self, p: Product) -> float:
        """Return the seconds of a matrix product of these shapes."""
        if p not in self._products:
            xp = self.backend.xp

            def operand(stack: int, rows: int, columns: int, transposed: bool) -> Any:
                lead = (stack,) if stack > 1 else ()
                return xp.matrix_transpose(self.array(*lead, columns, rows)) if transposed else self.array(*lead, rows, columns)

            a, b = operand(p.left, p.m, p.k, p.left_transposed), operand(p.right, p.k, p.n, p.right_transposed)
            self._products[p] = self.seconds(lambda: xp.matmul(a, b))
        return self._products[p]

    def factorisation(self, name: str, shape: tuple[int, ...]) -> float:
        """Return the seconds of a function of `linalg`, qr or slogdet, say, of an array of this shape."""
        if (name, shape) not in self._factorisations:
            a = self.array(*shape)
            if name == "cholesky":
                a = self.backend.asarray(2.0 * np.eye(shape[-1]) + np.zeros(shape))
            function = getattr(self.backend.xp.linalg, name)
            arrays = (a, a) if name == "solve" else (a,)
            self._factorisations[name, shape] = self.seconds(lambda: function(*arrays))
        return self._factorisations[name, shape]

    @cached_property
    def curves(self) -> dict[str, tuple[float, ...]]:
        """Seconds of a call of each kind for each of `SIZES`, as in a step: of operands that were not used just now, into new memory."""
        xp, width = self.backend.xp, np.dtype(str(self.backend.dtype).rpartition(".")[2]).itemsize
        kinds: dict[str, tuple[int, int, Callable[[Any], Any]]] = {
            "arithmetic": (2, 32, lambda a: a + 1.0),
            "function": (2, 32, xp.exp),
            "copy": (4, 34, lambda a: xp.concat([a[:, :32], a[:, 2:]], axis=0)),
            "sum": (1, 32, lambda a: xp.sum(a, axis=1)),
            "arithmetic in pieces": (2, 40, lambda a: pieces(a) + 1.0),
            "copy in pieces": (2, 40, lambda a: xp.concat([pieces(a)[:, :2, :], pieces(a)[:, 2:, :]], axis=1)),
        }

        def pieces(a: Any) -> Any:
            return xp.reshape(a, (len(a), 4, 10))[:, :, 1:9]

        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        for n in SIZES:
            for kind, (arrays, columns, function) in kinds.items():
                count = max(2, min(IN_USE // n, 64))
                operands = cycle([self.array(max(1, n // (arrays * width * 32)), columns) for _ in range(count)])
                results: deque[Any] = deque(maxlen=count)
                work = lambda operands=operands, results=results, function=function: results.append(function(next(operands)))  # noqa: E731
                found[kind].append(self.seconds(work))
        return {kind: tuple(values) for kind, values in found.items()}

    def moved(self, kind: str, n: int) -> float:
        """Return the seconds of a call of this kind that reads and writes n bytes."""
        curve = self.curves[kind]
        if n >= SIZES[-1]:
            return curve[-1] * n / SIZES[-1]
        return float(np.exp(np.interp(math.log(max(n, 1)), np.log(SIZES), np.log(curve))))

    @cached_property
    def call(self) -> float:
        """What the reference takes for a call beside the call: a step of two neurons, less what is predicted of its calls."""
        state, loss = smallest(self.backend)
        found = self._parts(counting.training_step(*smallest(_torch())))
        return max(0.0, (self.step(state, loss, 20) - sum(found[:3])) / found[3])

    @cached_property
    def concurrent(self) -> bool:
        """Whether a call returns before its work is done."""
        a = self.array(1024, 1024)

        def work() -> object:
            return self.backend.xp.matmul(a, a)

        work()
        begun = self.clock()
        for _ in range(4):
            work()
        issued = (time.process_time if self.on_host else time.perf_counter)() - begun
        return issued < 0.5 * (self.clock() - begun)

    def step(self, state: State, loss: Callable[[Any, int], Any], count: int = 3) -> float:
        """Return the seconds of the step that `counting.training_step` counts, with its random lengths, the least of so many runs."""
        found = math.inf
        for _ in range(count):
            marks: list[float] = []

            def mark(marks: list[float] = marks) -> None:
                marks.append(self.clock())

            counting.steps(state, loss, [mark, mark])
            found = min(found, marks[1] - marks[0])
        return found

    def predicted(self, count: Count) -> Predicted:
        """Return what is predicted of counted work."""
        products, factorisations, elementwise, calls = self._parts(count)
        return Predicted(products, factorisations, elementwise, calls * self.call, self.concurrent)

    def _parts(self, count: Count) -> tuple[float, float, float, int]:
        return (
            sum(n * self.product(p) for p, n in count.products.items()),
            sum(n * self.factorisation(*f) for f, n in count.factorisations.items()),
            sum(n * self.moved(*m) for m, n in count.moved.items()),
            count.calls,
        )


def smallest(backend: Backend) -> tuple[State, Callable[[Any, int], Any]]:
    """Return a training whose arrays have hardly a number: what it takes are calls."""
    x = backend.asarray(np.ones((1, 2)))
    flow = ir.Flow([ir.ResidualBlock(ir.mlp((2, 2, 2, 2), activation="lipswish", lipschitz=0.9, like=x))])
    options = ir.Options(logdet=ir.Series(4))
    state = start(flow, settings=Settings(certify_every=10**6, clip=1.0, average=0.9))
    return state, lambda model, step: maximum_likelihood(model, x, step=step, options=options, check=False)


def _torch() -> Backend:
    """Return the backend on which work is counted."""
    from iresnet_backends import get

    return get("torch:cpu", "float32")
