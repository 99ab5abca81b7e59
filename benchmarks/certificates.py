"""What the proofs cost and how sharp they are: `python benchmarks/certificates.py`, or with the names of some tables.

norms         slack of the proved ‖W‖₂ over the norm, and the times of the proof, the bound and numpy's SVD
convolutions  slack of the proved norm on an image over what power iteration reaches from below, and its time beside the SVD
constraints   Lip(g) by quadratic constraints beside the product of norms, and the times of search, candidate and proof
trained       the same of a flow that examples/paper/densities_2d.py has trained, if there is one, with its bounds from both sides
boxes         Lip(g) on a box by branch and bound beside the constant of the whole space, how close it is, and its cost
balls         time of a certified ball in forward passes F(x), and its radius relative to ‖x‖
arnoldi       vᵀlog(I + J)v by k products: error, proved bound a posteriori, and the a-priori bound
determinants  exact log-determinant: µs per sample, error against 256-bit ball arithmetic, and the bounds on it

One thread, float64; times are the least of several runs in CPU time of this process, so that a busy machine disturbs little.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import iresnet_ref as ir
from iresnet_backends import load
from iresnet_ref.arrays import host_norms
from iresnet_ref.branches.certificates.multipliers import best_multipliers
from iresnet_ref.branches.certificates.network import network_of
from iresnet_ref.branches.certificates.quadratic import LIPSCHITZ, Quadratic
from iresnet_ref.jacobian.convolution import Convolution, Padding
from iresnet_ref.layers.linear import Affine
from iresnet_ref.log_determinant.arnoldi.quadrature import arnoldi_logdet, graded_rule
from iresnet_ref.log_determinant.exact import exact_logdet
from iresnet_ref.norms.convolution import operator_norm_bound
from iresnet_ref.norms.dense import norm_bound, proves_norm_at_most
from iresnet_ref.rounding import logdet_rounding

sys.path.insert(0, str(Path(__file__).parents[1] / "verification/tests/support/oracles"))
U = 2.0**-53
Host = np.ndarray[Any, Any]


def seconds(work: Callable[[], Any], least: float = 0.2) -> float:
    """Return the shortest CPU time of one call, over runs that take `least` seconds together and five at the least."""
    work()
    spent: list[float] = []
    while sum(spent) < least or len(spent) < 5:
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def norm(w: Host) -> float:
    """Return ‖W‖₂ to about the square of float64's rounding: ‖Wv‖/‖v‖ at the computed v, in extended precision."""
    v = np.linalg.svd(w, full_matrices=False)[2][0].astype(np.longdouble)
    return np.linalg.norm(w.astype(np.longdouble) @ v) / np.linalg.norm(v)  # type: ignore[return-value]  # a longdouble, kept


def norms() -> Iterable[tuple[str, ...]]:
    """Yield shape, slack, what is promised of it, and the times of a proof of ‖W‖ ≤ c, of a bound, and of numpy's SVD."""
    yield "shape", "slack", "max(1e-12, n²u)", "proof of c", "bound", "singular values", "SVD", "proof/values", "bound/SVD"
    for shape in ((64, 64), (256, 64), (64, 256), (256, 256), (784, 64), (784, 784)):
        w = np.random.default_rng(0).standard_normal(shape)
        bound, n = norm_bound(w), min(shape)
        work = (
            lambda w=w, c=bound: proves_norm_at_most(w, c), lambda w=w: norm_bound(w),
            lambda w=w: np.linalg.svd(w, compute_uv=False), lambda w=w: np.linalg.svd(w, full_matrices=False),
        )  # fmt: skip
        proof, found, values, svd = (seconds(w) for w in work)
        yield (
            f"{shape[0]}×{shape[1]}", f"{float(bound / norm(w) - 1):.1e}", f"{max(1e-12, n * n * U):.1e}",
            *(f"{1e3 * t:.2f} ms" for t in (proof, found, values, svd)), f"{proof / values:.2f}", f"{found / svd:.2f}",
        )  # fmt: skip


def gaussian(outputs: int, inputs: int, k: int, seed: int) -> Host:
    return np.random.default_rng(seed).standard_normal((outputs, inputs, k, k))


def smooth(outputs: int, inputs: int, k: int, seed: int) -> Host:
    """Random channels times one Gaussian bell."""
    bell = np.exp(-0.5 * (np.arange(k) - k // 2) ** 2)
    mix: Host = np.random.default_rng(seed).standard_normal((outputs, inputs, 1, 1)) * np.outer(bell, bell)
    return mix


def box(outputs: int, inputs: int, k: int, seed: int) -> Host:
    del seed
    return np.ones((outputs, inputs, k, k))


KERNELS = [
    ("Gaussian", gaussian, 3, 3, 3, (8, 16, 32)), ("Gaussian", gaussian, 8, 8, 3, (8, 16)),
    ("Gaussian", gaussian, 16, 16, 3, (32,)), ("Gaussian", gaussian, 32, 32, 3, (16,)),
    ("Gaussian", gaussian, 8, 8, 5, (16,)), ("Gaussian", gaussian, 8, 8, 7, (16, 32)),
    ("smooth", smooth, 3, 3, 5, (16,)),
    ("box", box, 1, 1, 3, (16, 32)), ("box", box, 1, 1, 5, (16,)), ("box", box, 1, 1, 7, (16, 32)),
]  # fmt: skip


def convolutions(padding: Padding = "zero", kernels: int = 3) -> Iterable[tuple[str, ...]]:
    """Yield kernel, image, the smallest and the largest slack, and the time."""
    yield "kernel", "image", "slack", "time", "time of the SVD of the operator"
    for name, make, outputs, inputs, k, images in KERNELS:
        for n in images:
            slacks = []
            for seed in range(1 if make is box else kernels):
                a = Convolution(make(outputs, inputs, k, seed), (n, n), padding)
                below = float(ir.spectral.power_iteration(a, a.weight, steps=800).sigma)
                slacks.append(operator_norm_bound(a) / below - 1)
            proof = seconds(lambda a=a: operator_norm_bound(a))
            side = min(inputs, outputs) * n * n
            svd = f"{1e3 * seconds(lambda a=a: np.linalg.svd(a.matrix(), compute_uv=False), 0.0):.0f} ms" if side <= 800 else "–"
            yield (
                f"{name} {k}×{k}, {inputs}→{outputs}", f"{n}×{n}", f"{100 * min(slacks):.3f} … {100 * max(slacks):.3f} %",
                f"{1e3 * proof:.1f} ms", svd,
            )  # fmt: skip


CONSTRAINED: dict[str, Callable[[int], ir.Branch]] = {
    "2-64-64-2 elu": lambda seed: ir.mlp((2, 64, 64, 2), activation="elu", seed=seed),
    "2-64-64-2 lipswish": lambda seed: ir.mlp((2, 64, 64, 2), activation="lipswish", seed=seed),
    "2-64-64-2 sine": lambda seed: ir.mlp((2, 64, 64, 2), activation="sine", seed=seed),
    "16-32-32-16 elu": lambda seed: ir.mlp((16, 32, 32, 16), activation="elu", seed=seed),
    "64-128-64 elu": lambda seed: ir.mlp((64, 128, 64), activation="elu", seed=seed),
    "64-128-64 lipswish": lambda seed: ir.mlp((64, 128, 64), activation="lipswish", seed=seed),
    "64-128-64 maxmin": lambda seed: ir.mlp((64, 128, 64), activation="maxmin", seed=seed),
    "256-256-256-256 elu": lambda seed: ir.mlp((256,) * 4, activation="elu", seed=seed),
    "densenet 8, 3 × 32": lambda seed: ir.densenet(8, depth=3, growth=32, seed=seed),
    "circular 16×8×8, 3-1-3, elu": lambda seed: ir.convnet((16, 8, 8), channels=16, activation="elu", padding="circular", seed=seed),
    "zero-padded 3×16×16, 16 channels, elu": lambda seed: ir.convnet((3, 16, 16), channels=16, activation="elu", seed=seed),
}


def constraints(seeds: tuple[int, ...] = (101, 102)) -> Iterable[tuple[str, ...]]:
    """Yield the branch, its product, what constraints prove, N, the times, and the slack of the proof over the least ρ in float64."""
    yield "branch", "product", "proved Lip(g)", "N", "search", "candidate and proof", "proof", "proof / Cholesky", "slack"
    for name, make in CONSTRAINED.items():
        for seed in seeds:
            branch = make(seed)
            start = time.process_time()
            problem = Quadratic(network_of(branch.layers, branch.event_shape))
            centre = best_multipliers(problem, LIPSCHITZ)
            assert centre is not None
            searched = time.process_time() - start
            start = time.process_time()
            rho = problem.prove_least(LIPSCHITZ, centre.tau)
            both = time.process_time() - start
            proof = seconds(lambda: problem.proves(LIPSCHITZ, centre.tau, rho))  # noqa: B023 - called at once
            one = np.eye(problem.size)[None].repeat(problem.network.copies, axis=0)
            factorised = seconds(lambda: np.linalg.cholesky(one))  # noqa: B023 - called at once
            bound = min(problem.root(rho), branch.product.bound)
            yield (
                f"{name}, seed {seed}", f"{branch.product.bound:.3f}", f"{bound:.4f}", str(problem.size),
                f"{searched:.2f} s", f"{1e3 * both:.1f} ms", f"{1e3 * proof:.2f} ms", f"{proof / factorised:.1f}",
                f"{math.sqrt(rho / problem.least(LIPSCHITZ, centre.tau)) - 1:.0e}",
            )  # fmt: skip


MOONS = Path(__file__).parents[1] / "reports/examples/models/densities_2d-moons.safetensors"
TRAINING = "densities_2d.py --only moons --models i-ResNet --activation elu --blocks 8 --width 64 --seconds 40"


def trained() -> Iterable[tuple[str, ...]]:
    """Yield the product, Lip(g) and μ‖Δx‖ ≤ ‖ΔF‖ of each block, and 1/Πμ, which bounds Lip of the blocks' inverse, beside 1/Π(1 − L)."""
    if not MOONS.exists():
        yield (f"first run: python examples/paper/{TRAINING}",)
        return
    yield "block", "product", "proved Lip(g)", "μ", "search and proofs"
    rows = []
    for step in load(MOONS).steps.steps:
        if isinstance(block := getattr(step, "block", None), ir.ResidualBlock):
            start = time.process_time()
            rows.append((block.branch.product.bound, ir.certify(block).bound, ir.bounds.two_sided(block).lower))
            yield str(len(rows)), *(f"{v:.3f}" for v in rows[-1]), f"{time.process_time() - start:.2f} s"
    product, bound, lower = np.median(rows, axis=0)
    yield "median", f"{product:.3f}", f"{bound:.3f}", f"{lower:.3f}", ""
    yield "inverse", f"{np.prod([1 / (1 - row[0]) for row in rows]):.1e}", "", f"{np.prod([1 / row[2] for row in rows]):.1e}", ""


def on_boxes(*sizes: int, activation: str, side: float, somewhere: bool = False) -> tuple[ir.Branch, tuple[Host, Host]]:
    """Return a branch and the box of this half side around 0, or around a Gaussian point."""
    centre = np.random.default_rng(0).standard_normal(sizes[0]) * somewhere
    return ir.mlp(sizes, activation=activation, lipschitz=0.97, seed=0), (centre - side, centre + side)


BOXES: dict[str, Callable[[], tuple[ir.Branch, tuple[Host, Host]]]] = {
    **{
        f"2-64-64-2 {phi}, ±30": lambda phi=phi: on_boxes(2, 64, 64, 2, activation=phi, side=30.0)  # type: ignore[misc]
        for phi in ("sine", "elu", "lipswish", "gelu", "relu")
    },
    "2-64-64-64-2 sine, ±30": lambda: on_boxes(2, 64, 64, 64, 2, activation="sine", side=30.0),
    "3-64-64-3 sine, ±1": lambda: on_boxes(3, 64, 64, 3, activation="sine", side=1.0),
    "3-64-64-3 sine, ±3": lambda: on_boxes(3, 64, 64, 3, activation="sine", side=3.0),
    "3-64-64-3 sine, ±10": lambda: on_boxes(3, 64, 64, 3, activation="sine", side=10.0),
    "64-128-64 sine, x ± .01": lambda: on_boxes(64, 128, 64, activation="sine", side=0.01, somewhere=True),
    "784-256-784 sine, x ± .001": lambda: on_boxes(784, 256, 784, activation="sine", side=0.001, somewhere=True),
}


def boxes() -> Iterable[tuple[str, ...]]:
    """Yield the branch and its box, the product, what is proved on the box, the largest ‖J‖ met, the slack, boxes, and the times."""
    yield "branch, box", "product", "proved on the box", "largest ‖J‖ met", "slack", "boxes", "time", "µs a box"
    for name, make in BOXES.items():
        branch, box = make()
        known = branch.certificate.bound
        start = time.process_time()
        found = ir.certify(branch, within=box)
        spent = time.process_time() - start
        yield (
            name, f"{known:.3f}", f"{found.bound:.4f}", f"{found.met:.4f}", f"{100 * (found.bound / found.met - 1):.1f} %",
            f"{found.cells:,}", f"{spent:.2f} s", f"{1e6 * spent / found.cells:.0f}",
        )  # fmt: skip


BLOCKS: dict[str, tuple[Callable[[], ir.Branch], int]] = {
    "64-256-64, L = .9": (lambda: ir.mlp((64, 256, 64), lipschitz=0.9), 256),
    "64-256-256-64, L = .99": (lambda: ir.mlp((64, 256, 256, 64), lipschitz=0.99), 256),
    "784-64-784, L = .9": (lambda: ir.mlp((784, 64, 784), lipschitz=0.9), 256),
    "784-256-256-784, L = .99": (lambda: ir.mlp((784, 256, 256, 784), lipschitz=0.99), 256),
    "densenet 64, L = .9": (lambda: ir.densenet(64, depth=3, growth=64), 256),
    "convnet 3×16×16, L = .9": (lambda: ir.convnet((3, 16, 16), channels=32), 16),
}


def balls() -> Iterable[tuple[str, ...]]:
    """Yield the branch, the cost of a certified ball in forward passes, and its largest radius relative to ‖x‖."""
    yield "branch", "time of F(x)", "forward passes", "largest radius/‖x‖"
    for name, (make, batch) in BLOCKS.items():
        block = ir.ResidualBlock(make())
        x = np.random.default_rng(0).standard_normal((batch, *block.branch.event_shape))
        y = block(x)
        found = ir.invert(block, y, rtol=1e-13, throw=False).x
        radius = ir.bounds.inverse_ball(block, found, y).radius
        forward, ball = seconds(lambda: block(x)), seconds(lambda: ir.bounds.inverse_ball(block, found, y))  # noqa: B023 - called at once
        yield name, f"{1e3 * forward:.2f} ms", f"{ball / forward:.2f}", f"{float((radius / host_norms(found)[0]).max()):.1e}"


def two_layers(branch: ir.Branch, x: Host) -> list[Any]:
    """Return log det(I + W₁W₂D) per row in ball arithmetic: the exact value at the narrow dimension."""
    from ball_arithmetic import SLOPES, columns, evaluate
    from flint import arb_mat

    first, phi, last = branch.layers
    product = columns(first.weight.T) * columns(last.weight.T)  # type: ignore[attr-defined]  # dense layers
    h, n = evaluate(branch, columns(x))[1][0], product.nrows()
    slopes = [[SLOPES[phi.name](h[i, row]) for i in range(n)] for row in range(len(x))]
    matrices = (arb_mat([[int(i == j) + product[i, j] * s[j] for j in range(n)] for i in range(n)]) for s in slopes)
    return [matrix.det().log() for matrix in matrices]


def determinants(rows: int = 3) -> Iterable[tuple[str, ...]]:
    """Yield the sizes, µs per sample, the largest error against 256-bit arithmetic on some rows, and the bounds."""
    from ball_arithmetic import bits

    yield "branch", "batch", "µs per sample", "error", "8du/(1 − L)", "logdet_error_bound"
    for sizes, batch in (((64, 32, 64), 256), ((784, 64, 784), 64), ((784, 64, 784), 256)):
        block = ir.ResidualBlock(ir.mlp(sizes, lipschitz=0.9, seed=3))
        x = np.random.default_rng(0).standard_normal((batch, sizes[0]))
        value = exact_logdet(block.branch.linearize(x)[1])
        with bits(256):
            gap = max(abs(float(t - float(v))) for t, v in zip(two_layers(block.branch, x[:rows]), value, strict=False))
        each = seconds(lambda: ir.logdet(block, x, method="exact").value) / batch  # noqa: B023 - called at once
        bound = float(np.max(ir.bounds.logdet_error_bound(block, x[:rows])))
        order = min(sizes)
        yield (
            "-".join(map(str, sizes)), str(batch), f"{1e6 * each:.1f}", f"{gap:.1e}",
            f"{logdet_rounding(order, U, block.contraction()):.1e}", f"{bound:.1e}",
        )  # fmt: skip


ARNOLDI: dict[str, Callable[[Any, float], ir.Branch]] = {
    "64-128-64, lipswish": lambda seed, c: ir.mlp((64, 128, 64), activation="lipswish", lipschitz=c, seed=seed),
    "64-128-128-64, elu": lambda seed, c: ir.mlp((64, 128, 128, 64), activation="elu", lipschitz=c, seed=seed),
    "−Wᵀφ(Wx), 64-128-64, elu": lambda seed, c: tied(c, seed),
    "circular shift, 64": lambda seed, c: ir.Branch((Affine(c * np.roll(np.eye(64), 1, axis=0), np.zeros(64)),), (64,)),
}


def tied(lipschitz: float, seed: int) -> ir.Branch:
    """Return −Wᵀφ(Wx), whose Jacobian is symmetric."""
    first = ir.mlp((64, 128, 64), activation="elu", lipschitz=lipschitz, seed=seed).layers[0]
    phi = ir.mlp((64, 128, 64), activation="elu", lipschitz=lipschitz, seed=seed).layers[1]
    w = np.asarray(first.weight)  # type: ignore[attr-defined]  # a dense layer
    return ir.Branch((Affine(w, np.zeros(128)), phi, Affine(-w.T, np.zeros(64))), (64,))


def arnoldi(probes: int = 32) -> Iterable[tuple[str, ...]]:
    """Yield the branch, L, k, the mean error of a probe, its bounds, and the time of a probe in products with J."""
    yield "branch", "L", "k", "error", "bound", "bound/error", "a priori", "time in products"
    for name, make in ARNOLDI.items():
        for c in (0.9, 0.97):
            branch = make(0, c)
            lipschitz, x = branch.product.bound, np.random.default_rng(0).standard_normal((1, 64))
            chain, v = branch.jacobian(x), ir.Probes(count=probes).draw(x)
            j = chain.dense()[0]
            nodes, weights = graded_rule(lipschitz, j)
            solved = np.linalg.solve(np.eye(64) + nodes[:, None, None] * j, v[:, 0, :].T)
            truth = np.einsum("n,pi,nip->p", weights, v[:, 0, :] @ j, solved)
            product = seconds(lambda: chain.matvec(v), 0.05)  # noqa: B023 - called at once
            for k in (4, 8, 12):
                value, bound = arnoldi_logdet(chain, v, k, lipschitz)
                gap = np.abs(value[:, 0] - truth)
                spent = seconds(lambda: arnoldi_logdet(chain, v, k, lipschitz), 0.05)  # noqa: B023 - called at once
                yield (
                    name, f"{c:g}", str(k), f"{gap.mean():.0e}", f"{bound.mean():.0e}", f"{bound.mean() / gap.mean():.0f}",
                    f"{ir.bounds.truncation_bound(128, lipschitz, k):.0e}", f"{spent / product:.0f}",
                )  # fmt: skip


TABLES = {
    "norms": norms, "convolutions": convolutions, "constraints": constraints, "trained": trained, "boxes": boxes, "balls": balls,
    "arnoldi": arnoldi, "determinants": determinants,
}  # fmt: skip

if __name__ == "__main__":
    for title in sys.argv[1:] or TABLES:
        print(f"\n{title}\n")
        for i, row in enumerate(TABLES[title]()):
            print(f"| {' | '.join(row)} |" + (f"\n|{'---|' * len(row)}" if i == 0 else ""), flush=True)
