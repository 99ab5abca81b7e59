"""What shows in use: several threads at once, and many calls after each other."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.comparisons import ROUNDING, forward_deterministic, forward_tolerance, gap, warm_up
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import Comparison, verdict
from iresnet_verify.subject import outputs
from iresnet_verify.subject.module_state import is_torch_module

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context

THREADS, ROUNDS = 4, 3


@check(
    "hygiene.threads",
    claim="Forward calls from several threads at once give what each gives alone.",
    reference="torch.nn.Module: forward of a network in evaluation mode reads its state and writes none",
    kind="search", modes=False,
    cost="12 forward calls on four threads",
    catches="intermediate results kept on the module between two lines",
)
def threads(ctx: Context) -> Outcome:
    """Four threads, each with inputs of its own, three times; callables whose calls change state are not asked."""
    warm_up(ctx)
    if ctx.mode == "train" or _state_names(ctx.subject.module) & set(ctx.conventions.changes_state):
        return Outcome("skipped", "calls may change the network's state in this mode: nothing is claimed of several at once")
    batches = [ctx.inputs(max(ctx.rows, 8)) for _ in range(THREADS)]
    if not all(forward_deterministic(ctx, x) for x in batches):
        return Outcome("skipped", "forward is random in this mode: nothing is claimed of several calls at once")
    alone = [ctx.f.forward(x, seed=0) for x in batches]

    def call(x: Any) -> Any:
        return outputs.unpack("forward", ctx.caller.invoke("forward", x, seed=0))[0]

    with ctx.guard(), ThreadPoolExecutor(THREADS) as pool:
        together = [list(pool.map(call, [ctx.native(x) for x in batches])) for _ in range(ROUNDS)]
    errors, bounds = dict[Any, Any](), dict[Any, Any]()
    for k, answers in enumerate(together):
        for i, (x, y, native) in enumerate(zip(batches, alone, answers, strict=True)):
            got = ctx.host(native)
            errors["forward", i, k] = gap(got, y) if got.shape == y.shape else np.full(len(x), np.inf)
            bounds["forward", i, k] = forward_tolerance(ctx, x, y)
    return verdict(
        errors, bounds,
        expected=f"the same y from {THREADS} threads at once as alone",
        remedy="keep intermediate results in local variables",
        passed=f"not refuted: {THREADS} threads, {ROUNDS} times", tolerance=ROUNDING, oracle="the same call alone",
        evidence={"threads": THREADS}, counterexample=lambda at: Counterexample({"x": batches[at.case[1]]}),
    )


def _state_names(module: Any) -> set[str]:
    """The names of parameters and buffers, which power iterations and running statistics change by design."""
    return {n for n, _ in (*module.named_parameters(), *module.named_buffers())} if is_torch_module(module) else set()


@check(
    "hygiene.memory",
    claim="Neither memory in use nor the graph behind the module's tensors grows with the number of calls.",
    reference="a call leaves nothing behind but its result", kind="search",
    cost="20 (quick) or 100 forward calls",
    catches="lists of activations, running statistics that are not detached, hooks added at every call",
)
def memory(ctx: Context) -> Outcome:
    """A hundred forward passes (quick: twenty) whose results are dropped must not leave half a number a row behind.

    In bytes of arrays, of which a kept log-det is the least; and, since what a graph saves is invisible to Python, in nodes
    of the autograd graph of torch that tensors outside the calls still reach.
    """
    calls = 20 if ctx.budget.name == "quick" else 100
    x = ctx.inputs(max(ctx.rows, 64))
    y = ctx.f.forward(x)
    for _ in range(3):
        ctx.raw_forward(ctx.native(x))
    with _memory(ctx.framework.name) as kept:
        ctx.raw_forward(ctx.native(x))  # a cache of the last call is renewed here: its size is no growth
        held = [kept()]
        for _ in range(2):
            for _ in range(calls // 2):
                ctx.raw_forward(ctx.native(x))
            held.append(kept())
    # what is allocated once is no growth either
    grown = {what: 2 * min(held[1][what] - held[0][what], held[2][what] - held[1][what]) for what in held[0]}
    per_row = y.itemsize * len(y)
    limit = {"bytes": calls * per_row // 2, "nodes": calls // 2}

    def got(at: Comparison) -> str:
        if at.case == "nodes":
            return f"{at.error:.0f} more nodes of the autograd graph kept alive after {calls} calls"
        return f"{at.error:.0f} bytes more after {calls} calls, {at.error / calls / per_row:.1f} numbers a row and call"

    return verdict(
        grown, {what: limit[what] for what in grown},
        expected="memory not to grow",
        got=got,
        remedy="look for what is appended to or cached on the module, and detach what is kept of a call",
        passed=f"{' and '.join(f'{n} {what}' for what, n in grown.items())} more after {calls} calls",
        tolerance="half a number a row and call, half a node a call",
        oracle="memory in use before", evidence={"compared": calls, "bytes_of_one_log_det": per_row},
        counterexample=lambda at: Counterexample({"x": x}),
    )


@contextmanager
def _memory(framework: str) -> Iterator[Callable[[], dict[str, int]]]:
    """A function that counts what is kept since: bytes in torch's tensors, in JAX's arrays or in NumPy's.

    Not of what Python allocates besides: other threads and the interpreter's own caches add some kilobytes as they see fit.
    """
    gc.freeze()  # what is there already is left out of the count, and of the collections
    try:
        if framework == "torch":
            yield _new_tensors
        elif framework.startswith("jax"):
            yield lambda: {"bytes": _bytes_of_jax_arrays()}
        else:
            with _traced():
                yield lambda: {"bytes": _bytes_of_numpy_arrays()}
    finally:
        gc.unfreeze()


@contextmanager
def _traced() -> Iterator[None]:
    tracing = tracemalloc.is_tracing()  # begun by the caller, to be left on
    tracemalloc.start()
    try:
        yield
    finally:
        if not tracing:
            tracemalloc.stop()


def _bytes_of_numpy_arrays() -> int:
    gc.collect()
    arrays = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
    return sum(trace.size for trace in arrays.traces)


def _bytes_of_jax_arrays() -> int:
    import jax

    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays())


def _new_tensors() -> dict[str, int]:
    """The storages of all tensors outside the frozen generation, each once, and the nodes of the graphs behind them."""
    import torch

    gc.collect()
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    nodes, open_ends = set[Any](), [t.grad_fn for t in tensors if t.grad_fn is not None]
    while open_ends:
        node = open_ends.pop()
        if node not in nodes:
            nodes.add(node)
            open_ends += [before for before, _ in node.next_functions if before is not None]
    return {"bytes": sum(storages.values()), "nodes": len(nodes)}
