"""The model of cost checked: predictions from counted work and measured rates beside what steps take; what `certify_every` leaves.

    python benchmarks/cost_model.py > docs/cost-model.md                      NumPy and torch on the CPU, float32 and float64
    python benchmarks/cost_model.py --backends torch:cuda:0 --dtypes float32  the same elsewhere

A prediction and what it is about follow one another, so that other work on the machine disturbs both alike. One thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

import iresnet_ref as ir
from iresnet_backends import Backend, get
from iresnet_ref.branches import estimated
from iresnet_ref.norms import largest_pair
from iresnet_ref.norms.largest_pair import largest_pairs
from iresnet_ref.training import Settings, maximum_likelihood, start
from iresnet_verify.machine.counting import Count, Product, counted, on_meta, training_step
from iresnet_verify.machine.prediction import Rates

MLPS = {"MLP 2-32-32-2": 256, "MLP 64-256-256-64": 1024, "MLP 64-1024-1024-64": 512}
CONVNETS = {"3×16×16, 64 channels": 16, "3×32×32, 128 channels": 8, "12×16×16, 512 channels": 8, "48×8×8, 512 channels": 16}
RECIPE = {"3×32×32, 512 channels": 64, "12×16×16, 512 channels": 64, "48×8×8, 512 channels": 64}
"""The blocks of examples/paper/recipes/cifar10.toml, at its batch."""
LARGE = 2e-2
"""Seconds from which on a step is large: calls are then a small part."""
EVERY = 100
OPTIONS = ir.Options(logdet=ir.Roulette(4.0))
KEPT = {name: str(2**33) for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")}
"""Tells glibc to keep the memory of arrays that are gone, of whatever size, in place of asking the system for new pages every time."""


class Training:
    """A training of one block on a backend: `state`, `loss`, rows `x`."""

    def __init__(self, case: str, batch: int, b: Backend) -> None:
        like = b.asarray(np.zeros(1))
        if case.startswith("MLP"):
            sizes = tuple(int(n) for n in case.split()[1].split("-"))
            branch: ir.Branch = ir.mlp(sizes, activation="lipswish", lipschitz=0.941, like=like)
        else:
            shape, channels = case.removesuffix(" channels").split(", ")
            event = tuple(int(n) for n in shape.split("×"))
            branch = ir.convnet(event, channels=int(channels), kernels=(3, 1, 3), activation="lipswish", lipschitz=0.941, like=like)
        self.x = b.asarray(np.random.default_rng(0).standard_normal((batch, *branch.event_shape)))
        flow = ir.Flow([ir.ResidualBlock(branch)])
        self.state = start(flow, lipschitz=0.941, settings=Settings(certify_every=EVERY, clip=1.0, average=0.999))

    def loss(self, model: Any, step: int) -> Any:
        return maximum_likelihood(model, self.x, step=step, options=OPTIONS, check=False)

    def count(self) -> Count:
        """Return that of a step, without numbers; of a training with torch."""
        x, self.x = self.x, self.x.to("meta")
        try:
            return training_step(on_meta(self.state), self.loss)
        finally:
            self.x = x


def check(rates: Rates, name: str, found: Count, measured: Callable[[], float]) -> tuple[str, float, float]:
    """Return the line of a table, the seconds measured and the ratio."""
    rates.predicted(found)  # what has to be measured for it
    predicted, seconds = rates.predicted(found), measured()
    ratio = predicted.seconds / seconds
    parts = " | ".join([
        f"{found.flops / 1e9:.3g}", f"{found.bytes / 1e9:.2g}", f"{found.calls}", f"{1e3 * predicted.products:.3g}",
        f"{1e3 * predicted.elementwise:.3g}",
    ])  # fmt: skip
    print(f"{name}: {ratio:.2f}", file=sys.stderr, flush=True)
    return f"| {name} | {parts} | {1e3 * predicted.seconds:.3g} | {1e3 * seconds:.3g} | {ratio:.2f} |", seconds, ratio


def checked(rates: Rates) -> Iterator[tuple[str, str, float, float]]:
    """Yield (kind of work, line, seconds, ratio) of everything that is predicted on this backend."""
    b, dtype = rates.backend, str(rates.backend.dtype).rpartition(".")[2]
    where, counting = f"{b.name.removesuffix(':cpu')} {dtype}", get("torch:cpu", dtype)
    for case, batch in {**MLPS, **CONVNETS}.items():
        here = Training(case, batch, b)
        count = Training(case, batch, counting).count()
        yield "step", *check(rates, f"{where}, step, {case}, {batch} rows", count, lambda here=here: rates.step(here.state, here.loss))
    d, batch = 64, 256

    def pair(b: Backend) -> tuple[ir.ResidualBlock, Any]:
        F = ir.ResidualBlock(ir.mlp((d, 256, d), activation="elu", lipschitz=0.9, like=b.asarray(np.zeros(1))))
        F.contraction()
        return F, b.asarray(np.random.default_rng(0).standard_normal((batch, d)))

    works: dict[str, Callable[[ir.ResidualBlock, Any], Any]] = {
        "F(x)": lambda F, x: F(x, check=False),
        "series, 8 terms": lambda F, x: ir.logdet(F, x, ir.Series(8), check=False),
        "exact log det": lambda F, x: ir.logdet(F, x, "exact", check=False),
        "inverse": lambda F, x: ir.invert(F, x, check=False),
    }
    for name, work in works.items():
        F, x = pair(counting)
        work(F, x)

        def once(begin: Callable[[], None], work: Any = work, F: Any = F, x: Any = x) -> None:
            begin()
            work(F, x)

        G, y = pair(b)
        said = f"{where}, {name}, {d}-256-{d}, {batch} rows"
        yield "other", *check(rates, said, counted(once), lambda work=work, G=G, y=y: rates.seconds(lambda: work(G, y)))


def proofs() -> Iterator[tuple[str, str, float, float]]:
    """Yield the same of warm proofs, which run on the host in float64, of a weight that has moved by a hundredth.

    A Gram matrix, of which half is computed; as many products with a block as the filter makes, in float32 for half of the time; one
    with the block that is left; a Cholesky factorisation.
    """
    rates = Rates(get("numpy", "float64"))
    for n in (256, 512, 1024):
        w, step = np.random.default_rng(0).standard_normal((2, 1, n, n)) / n**0.5
        start, moved = largest_pairs(w).block, w + 0.01 * step
        degrees: list[int] = []
        with recorded(largest_pair, "_degree", degrees.append):
            largest_pairs(moved, start)
        count = Count()
        count.products.update({Product(1, n, n, n // 2, 1, False, True): 1, Product(1, n, n, 16, 1, False, False): sum(degrees) // 2 + 1})
        count.factorisations["cholesky", (n, n)] = 1
        said = f"host float64, warm proof of ‖W‖, {n}×{n}"
        yield "proof", *check(rates, said, count, lambda w=moved, s=start: rates.seconds(lambda: largest_pairs(w, s)))


@contextmanager
def recorded(owner: Any, name: str, see: Callable[[Any], object]) -> Iterator[None]:
    """Show what calls of owner.name return."""
    before = getattr(owner, name)

    def run(*args: Any) -> Any:
        see(found := before(*args))
        return found

    with patch.object(owner, name, run):
        yield


@contextmanager
def timed(owner: Any, name: str, clock: Callable[[], float], spent: dict[str, float]) -> Iterator[None]:
    """Add up what calls of owner.name take."""
    before = getattr(owner, name)

    def run(*args: Any, **kwargs: Any) -> Any:
        begun = clock()
        found = before(*args, **kwargs)
        spent[name] = spent.get(name, 0.0) + clock() - begun
        return found

    with patch.object(owner, name, run):
        yield


def besides(rates: Rates, case: str, batch: int) -> tuple[str, float]:
    """Return the line about what a step with `certify_every` takes beside products and element-wise work, and its share."""
    here, spent = Training(case, batch, rates.backend), dict[str, float]()
    count = Training(case, batch, get("torch:cpu", str(rates.backend.dtype).rpartition(".")[2])).count()
    near = here.state.normalised.with_parameters({k: 1.001 * p for k, p in here.state.normalised.parameters().items()})
    begun = time.process_time()
    near.require_certified()
    proof = time.process_time() - begun
    marks: list[float] = []
    from iresnet_verify.machine import counting

    with timed(estimated, "_leading", rates.clock, spent), timed(ir.Probes, "draw", rates.clock, spent):

        def mark() -> None:
            if not marks:
                spent.clear()
            marks.append(rates.clock())

        counting.steps(here.state, here.loss, [mark, mark])
    whole = marks[1] - marks[0]
    predicted = rates.predicted(count).seconds
    parts = [spent["_leading"], proof / EVERY, spent["draw"], count.calls * rates.call]
    shares = " | ".join(f"{100 * part / whole:.2f} %" for part in parts)
    share = sum(parts) / whole
    line = f"| {rates.backend.name} | {case} | {predicted:.3g} | {whole:.3g} | {predicted / whole:.2f} | {shares} | {100 * share:.1f} % |"
    print(line, file=sys.stderr, flush=True)
    return line, share


PAGE = """# A model of cost

What a piece of work takes on other hardware is predicted from what it does and from rates that are measured there in seconds
(`iresnet_verify.machine.counting`, `.prediction`):

    t = Σ t(product) + Σ t(kind, bytes) + c·calls

The work is *counted* from the model itself, while torch runs it on arrays that have shapes and no numbers (its `meta` device):
every function that the reference calls, by the shapes that go in and come out. So no layer has a formula of its own, and a step of
the CIFAR-10 recipe, which no memory here would hold, is counted in a second. What decides on values (an inverse) is counted on the
CPU while it runs. *Measured* on the backend: each product of these shapes; element-wise arithmetic, a function (exp), copies, sums,
and the first two on rows of images that lie in pieces, at sizes from 4 kB to 256 MB of operands that were not used just now; and c,
what the reference itself takes for a call, from a step of a network of two neurons. On a device that works beside the host the
prediction is the larger of the two.

`python benchmarks/cost_model.py > docs/cost-model.md` writes this page; `--backends torch:cuda:0` runs it elsewhere, and `python
examples/paper/images.py cifar10 --cost --backend torch:cuda:0` predicts the CIFAR-10 recipe. **No GPU has been predicted or
measured yet**; what is checked here is one core of a CPU, {load}.

{summary}

The kinds of work and the sizes at which bytes are measured were chosen in four versions while looking at the ratios of the training
steps of the first table: those ratios are a fit. The blocks of the recipe are the test, looked at three times before: sizes of
64 MB and more were added after their first ratios; after the second (.46 to .87) products and bytes were timed within the steps,
and what was missing was the system's time to hand out memory. So everything on this page runs with memory that is kept (below).
The first run that kept it had .85 to 1.04 for the blocks; since then the step that is measured is the very one that was counted,
with its random lengths of series, where the least of three steps had been taken.

| work | Gflop of products | GB of the rest | calls | products, ms | rest, ms | predicted, ms | measured, ms | ratio |
|---|---|---|---|---|---|---|---|---|
{table}

**Memory that is kept.** The C library gives the memory of large arrays back to the system and asks for it again, and the system fills
every page with zeros. This script starts itself with `MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` at 8 GiB, with which
glibc keeps it. It is worth doing in any training on a CPU with arrays of more than a few MB: a step of the block 3×32×32 with 512
channels on NumPy, 64 images, took 5.2 and 5.9 s so and 11.8 and 13.8 s without, of which 6.1 and 7.6 s in the system (a virtual
machine, load average 9 on 2 cores); with 16 images 1.4 and 1.9 to 2.0 s.

Not modelled: that (where memory is not kept); copies between host and device (counted in [backends](backends.md)), compiled steps
(they fuse element-wise work), several threads unless the rates are measured with as many, and what other work on the machine takes
away while one side is measured.

## What `certify_every` leaves

One training step of a block of each scale of the CIFAR-10 recipe, its batch of 64 images, float32, one core, with
`certify_every={every}`: the share of the step that the estimates of the norms take, a hundredth of the proof, the draws of the
probes, and the calls themselves (c·calls).

| backend | block | predicted, s | measured, s | ratio | estimates | proof/{every} | draws | calls | beside products and element-wise work |
|---|---|---|---|---|---|---|---|---|---|
{besides}

Wanted: at most 5 % together. {verdict}
"""


def main() -> None:
    """Print the page."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--backends", default="numpy,torch:cpu")
    made.add_argument("--dtypes", default="float32,float64")
    asked = made.parse_args()
    if not KEPT.keys() <= os.environ.keys():  # read once, when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEPT})
    before = os.getloadavg()[0]
    found: list[tuple[str, str, float, float]] = []
    left: list[tuple[str, float]] = []
    for backend in [get(name, dtype) for name in asked.backends.split(",") for dtype in asked.dtypes.split(",")]:
        rates = Rates(backend)
        found += checked(rates)
        if str(backend.dtype).endswith("float32"):
            left += [besides(rates, case, batch) for case, batch in RECIPE.items()]
    found += proofs()
    large = [ratio for kind, _, seconds, ratio in found if kind == "step" and seconds >= LARGE]
    lines = []
    for what, ratios in (
        (f"{len(large)} training steps of {1e3 * LARGE:g} ms or more", large),
        ("smaller steps", [r for kind, _, s, r in found if kind == "step" and s < LARGE]),
        ("F(x), log-determinants, inverses", [r for kind, _, _, r in found if kind == "other"]),
        ("proofs", [r for kind, _, _, r in found if kind == "proof"]),
    ):
        if ratios:
            within = sum(1 / 1.5 <= r <= 1.5 for r in ratios)
            middle = f"{statistics.median(ratios):.2f} in the median, {min(ratios):.2f} to {max(ratios):.2f}"
            lines.append(f"* {what}: predicted/measured {middle}; {within} of {len(ratios)} within a factor 1.5.")
    if left:
        ratios = [float(line.split("|")[5]) for line, _ in left]
        ends = f"{min(ratios):.2f} to {max(ratios):.2f}; {sum(1 / 1.5 <= r <= 1.5 for r in ratios)} of {len(ratios)} within a factor 1.5"
        lines.append(f"* steps of the CIFAR-10 recipe's blocks, at its batch (below): predicted/measured {ends}.")
    kept = sum(share <= 0.05 for _, share in left)
    verdict = f"Kept in {kept} of {len(left)}." if left else ""
    load = f"CPU time, while other work ran too (load average {before:.1f} to {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)"
    print(PAGE.format(load=load, summary="\n".join(lines), table="\n".join(line for _, line, _, _ in found), every=EVERY,
                      besides="\n".join(line for line, _ in left), verdict=verdict), end="")  # fmt: skip


if __name__ == "__main__":
    main()
