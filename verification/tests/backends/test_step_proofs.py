"""Laws of the host's part of a compiled step: what stacks prove is what branches prove, and what stacks do not prove goes to branches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_backends.step_proofs import Divided, StepProofs
from iresnet_ref import training

AS_TODAY = 1e-9


def state(*branches: Any) -> training.State:
    """Of a flow whose weights are above their shares, and below them in every other branch."""
    scaled = [g.with_parameters({k: (0.5 if i % 2 else 3.0) * p for k, p in g.parameters().items()}) for i, g in enumerate(branches)]
    return training.start(ir.Flow([ir.ResidualBlock(g) for g in scaled]))


def moved(parameters: dict[str, Any], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {k: p + (1e-3 * rng.choice([-1.0, 1.0], p.shape)).astype(p.dtype) for k, p in parameters.items()}


def ways(begun: training.State, seed: int = 0) -> tuple[StepProofs, Divided | None, Divided]:
    proofs, parameters = StepProofs(begun.normalised), moved(begun.normalised.parameters(), seed)
    return proofs, proofs._in_stacks(parameters), StepProofs(begun.normalised)._by_branches(parameters)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stacks_prove_what_branches_prove(dtype: type[Any]) -> None:
    """Bounds agree to 1e-9, and the rounding of a weight to its dtype may go the other way; where the block was used slopes to 1e-4."""
    sizes = ((2, 32, 32, 2), (2, 32, 32, 2), (2, 32, 32, 2), (2, 5, 2))
    proofs, stacked, branched = ways(state(*(ir.mlp(s, seed=seed, like=np.zeros(1, dtype=dtype)) for seed, s in enumerate(sizes))))
    assert proofs.matrices
    assert stacked is not None
    u = float(np.finfo(dtype).eps)
    for name, a, b in zip(Divided._fields, stacked, branched, strict=True):
        assert a.shape == b.shape, name
        allowed = 1e-4 if name == "slopes" else AS_TODAY + (u if name == "divided" else 0.0)
        assert np.abs(a - b).max() <= allowed * np.abs(b).max(), name
    assert stacked.divided.dtype == dtype
    kept = branched.scales == 1.0
    assert kept.any()
    assert not kept.all()
    assert (stacked.sigmas[kept] == 1.0).all()
    for key, weight in proofs.weights.apart(stacked.divided).items():
        share = proofs.shares[weight.shape][proofs.stacks[weight.shape].index((key[:2], key[2:].removesuffix("weight")))]
        assert ir.layers.Affine(weight, np.zeros(len(weight), dtype=dtype)).norm_bound() <= share * (1.0 + 1e-14)


def test_a_proof_begins_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40×40 weights that move little no eigenvalues are computed but those of the block."""
    begun, whole, sides = state(ir.mlp((2, 40, 40, 2)), ir.mlp((2, 40, 40, 2), seed=1)), np.linalg.eigh, list[int]()
    proofs, parameters = StepProofs(begun.normalised), begun.normalised.parameters()
    monkeypatch.setattr(np.linalg, "eigh", lambda a: (sides.append(a.shape[-1]), whole(a))[1])
    for step in range(3):
        parameters = moved(parameters, step)
        proofs.prove(parameters)
        assert proofs.warm["0."]["2."].vectors.shape == (40, 8)
    assert set(sides) == {2, 8}


@pytest.mark.parametrize(
    "other", ["a tiny weight", "a weight that is 0", "a huge weight", "a convolution", "the 1-norm", "dense connections"]
)
def test_what_stacks_do_not_prove_goes_to_branches(other: str) -> None:
    branch: Any = {
        "a convolution": lambda: ir.convnet((1, 5, 5), channels=(3,), kernels=(3, 3)),
        "the 1-norm": lambda: ir.mlp((25, 4, 25), norm=1.0),
        "dense connections": lambda: ir.densenet(25, growth=4),
    }.get(other, lambda: ir.mlp((25, 4, 25)))()
    begun = state(branch)
    proofs = StepProofs(begun.normalised)
    entry = {"a tiny weight": 1e-30, "a weight that is 0": 0.0, "a huge weight": 2.0**59}.get(other)
    parameters = begun.normalised.parameters()
    if entry is not None:
        parameters["0.0.weight"] = np.full_like(parameters["0.0.weight"], entry)
    assert proofs.matrices == (entry is not None)
    assert not proofs.matrices or proofs._in_stacks(parameters) is None
    proofs.prove(parameters)
    own = begun.normalised.with_parameters(parameters).model.parameters()
    for key, weight in proofs.weights.apart(proofs.found.divided).items():
        assert np.abs(weight - own[key]).max() <= AS_TODAY * np.abs(own[key]).max(initial=0.0)
