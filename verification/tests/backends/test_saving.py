"""What is saved is what is loaded, bit for bit, on any backend; a bad file gets one clear error."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bijection_cases import TABLE, batch
from tables import CONSTRUCTORS, backend, digits50

import iresnet_ref as ir
from iresnet_backends import get, load, save
from iresnet_backends.errors import BackendUnavailableError, FormatError
from iresnet_ref.arrays import from_host, namespace, to_host
from iresnet_ref.layers import activations
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.pointwise import Pointwise

safetensors = pytest.importorskip("safetensors.numpy")


def flow(like: Any) -> ir.Flow:
    x = from_host(np.random.default_rng(1).standard_normal((16, 3)), like)
    block = ir.ResidualBlock(ir.mlp((3, 8, 3), activation="elu", lipschitz=0.9, seed=2, like=like), 0.95)
    norm, mixing = ir.bijections.ActNorm.uninitialised((3,), like), ir.bijections.PLULinear.rotation((3,), seed=3, like=like)
    steps = [norm, block, mixing, norm]
    return ir.Flow(steps, options=ir.Options(logdet=ir.Series(5, probes=ir.Probes(seed=9, count=2)))).initialise(x)


def test_a_length_distribution_is_stated_again_after_loading(tmp_path: Path) -> None:
    lengths = ir.roulette.LengthDistribution(lambda k: 0.96 ** (k - 1), 0.96)
    ours = dataclasses.replace(flow(np.zeros(1)), options=ir.Options(logdet=ir.Roulette(lengths)))
    save(tmp_path / "f", dataclasses.replace(ours, options=ir.Options()))
    again = dataclasses.replace(load(tmp_path / "f"), options=ours.options)
    x = np.random.default_rng(4).standard_normal((5, 3))
    assert bits(again.log_prob(x).value) == bits(ours.log_prob(x).value)


def bits(x: Any) -> bytes:
    return to_host(x).tobytes()


@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64", "torch-f32", "torch-f64", "strict-device1-f32", "strict-device2-f64"])
def test_log_prob_has_the_same_bits_after_loading(key: str, tmp_path: Path) -> None:
    b = backend(key)
    ours = flow(b.asarray(np.zeros(1)))
    save(tmp_path / "flow.safetensors", ours)
    again = load(tmp_path / "flow.safetensors", backend=b)
    x = b.asarray(np.random.default_rng(4).standard_normal((5, 3)))
    assert bits(again.log_prob(x).value) == bits(ours.log_prob(x).value)
    assert again.options == ours.options
    assert again.steps.steps[1].block.lipschitz == 0.95
    assert all(p.dtype == b.dtype for p in again.parameters().values())
    plain = load(tmp_path / "flow.safetensors")
    assert {k: bits(v) for k, v in plain.parameters().items()} == {k: bits(v) for k, v in ours.parameters().items()}
    named = load(tmp_path / "flow.safetensors", backend="torch:cpu")
    assert {k: bits(v) for k, v in named.parameters().items()} == {k: bits(v) for k, v in ours.parameters().items()}
    assert list(tmp_path.iterdir()) == [tmp_path / "flow.safetensors"]


@pytest.mark.parametrize("initialised", [False, True])
def test_an_actnorm_stays_as_initialised_as_it_was(initialised: bool, tmp_path: Path) -> None:
    actnorm = ir.bijections.ActNorm.uninitialised((2,))
    x = np.asarray([[1.0, 2.0], [3.0, 5.0]])
    actnorm = actnorm.initialise(x) if initialised else actnorm
    save(tmp_path / "a", actnorm)
    again = load(tmp_path / "a")
    assert again.initialised is initialised
    assert (again.initialise(10.0 * x) is again) is initialised


@pytest.mark.parametrize("name", TABLE)
def test_every_bijection_comes_back(name: str, tmp_path: Path) -> None:
    f = TABLE[name](np.zeros(1))
    save(tmp_path / "f", f)
    x = batch(f, "numpy-f64")
    again = load(tmp_path / "f")
    assert bits(again(x)) == bits(f(x))


@pytest.mark.parametrize("name", [name for name in CONSTRUCTORS if not name.startswith("own")])
def test_every_branch_comes_back_with_its_certificate(name: str, tmp_path: Path) -> None:
    g = CONSTRUCTORS[name](np.zeros(1), 5)
    save(tmp_path / "g", g)
    again = load(tmp_path / "g")
    assert again.certificate == g.certificate
    assert [layer.name for layer in again.layers] == [layer.name for layer in g.layers]
    assert {k: bits(v) for k, v in again.parameters().items()} == {k: bits(v) for k, v in g.parameters().items()}


def test_convolutions_and_bases_come_back(tmp_path: Path) -> None:
    g = ir.convnet((2, 6, 4), channels=3, padding="circular", seed=6)
    base = ir.densities.DiagonalGaussian(np.full((2, 6, 4), 0.5), np.full((2, 6, 4), -0.25))
    ours = ir.Flow([ir.ResidualBlock(g)], base)
    save(tmp_path / "f", ours)
    x = np.random.default_rng(7).standard_normal((3, 2, 6, 4))
    assert bits(load(tmp_path / "f").log_prob(x).value) == bits(ours.log_prob(x).value)
    dense = ir.NormalisedBranch(ir.mlp((3, 5, 3)), 0.5)
    save(tmp_path / "n", dense)
    assert bits(load(tmp_path / "n").branch(x[:, 0, :3, 0])) == bits(dense.branch(x[:, 0, :3, 0]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_dtypes_keep_their_bits(dtype: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    like = torch.zeros(1, dtype=getattr(torch, dtype))
    a = ir.bijections.ActNorm(torch.tensor([0.1, -7.3]).to(like.dtype), torch.tensor([1e-3, 2.0]).to(like.dtype), (2,))
    save(tmp_path / "a", a)
    again = load(tmp_path / "a", like=like)
    assert again.shift.dtype == like.dtype
    assert torch.equal(again.shift, a.shift)
    assert torch.equal(again.log_scale, a.log_scale)


def test_strides_and_gradient_history_do_not_matter(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    weight = torch.arange(6, dtype=torch.float64).reshape(2, 3).T.requires_grad_(True)
    g = ir.Branch((Affine(weight, torch.zeros(3, dtype=torch.float64)),), (2,))
    save(tmp_path / "g", g)
    assert np.array_equal(load(tmp_path / "g").parameters()["0.weight"], weight.detach().numpy())


def test_like_gives_namespace_and_dtype(tmp_path: Path) -> None:
    save(tmp_path / "f", flow(np.zeros(1)))
    like = backend("strict-device1-f32").asarray(np.zeros(1))
    again = load(tmp_path / "f", like=like)
    for p in again.parameters().values():
        assert namespace(p) is namespace(like)
        assert p.dtype == like.dtype


def edited(path: Path, change: Callable[[Any, dict[str, Any]], Any]) -> None:
    """Rewrite the file with its structure and tensors changed."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header, arrays = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    structure = json.loads(header["structure"])
    text = change(structure, arrays)
    text = text if isinstance(text, str) else json.dumps(structure)
    safetensors.save_file(arrays, path, metadata={**header, "structure": text})


def _fields(structure: Any) -> Any:
    return structure["fields"]["steps"]["fields"]["steps"]["tuple"][0]["fields"]


HOSTILE: dict[str, tuple[Callable[[Any, dict[str, Any]], Any], str]] = {
    "not json": (lambda _s, _a: "{", "structure as JSON"),
    "a list": (lambda _s, _a: "[1]", r"expected an object in the structure, got '\[1\]'"),
    "deep": (lambda _s, _a: '{"tuple": [' * 20000 + "1" + "]}" * 20000, "structure as JSON|valid subject"),
    "unknown type": (lambda s, _: s.update(type="os.system"), "expected a type of ActNorm, .*got 'os.system'"),
    "unhashable type": (lambda s, _: s.update(type=["Flow"]), "valid subject"),
    "unhashable array": (lambda s, _: _fields(s).update(shift={"array": ["a"]}), "valid subject"),
    "wrong keys": (lambda s, _: s.update(extra=1), r"got the keys \['extra', 'fields', 'type'\]"),
    "missing field": (lambda s, _: _fields(s).pop("initialised"), "ActNorm: expected the fields .*'initialised'"),
    "missing tensor": (lambda _, a: a.pop("steps.steps.0.shift"), "expected a tensor 'steps.steps.0.shift'"),
    "unused tensor": (lambda _, a: a.update(more=np.zeros(2)), r"got unused \['more'\]"),
    "wrong shape": (lambda _, a: a.update({"steps.steps.0.shift": np.zeros(7)}), "log_scale and shift of shape"),
    "wrong dtype": (lambda _, a: a.update({"steps.steps.0.shift": np.zeros(3, dtype=np.float32)}), "expected dtype"),
    "number for array": (lambda s, _: _fields(s).update(shift=1.0), "valid subject"),
    "name for shape": (lambda s, _: _fields(s).update(event_shape="ab"), "actnorm: expected|valid subject"),
    "activation": (lambda s, _: _fields(s).update(shift={"activation": "evil"}), "expected an activation of .*'evil'"),
    "a distribution": (
        lambda s, _: s["fields"]["options"]["fields"]["logdet"]["fields"].update(probes="geometric(0.9)"), "object of type Probes"
    ),
    "no bfloat": (lambda s, _: _fields(s)["shift"].update(dtype="bfloat16"), "bfloat16 stored as uint16"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_structure_is_one_clear_error(name: str, tmp_path: Path) -> None:
    change, message = HOSTILE[name]
    path = tmp_path / "f"
    save(path, flow(np.zeros(1)))
    edited(path, change)
    with pytest.raises(FormatError, match=message):
        load(path)


def test_truncated_files_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    save(path, flow(np.zeros(1)))
    whole = path.read_bytes()
    for n in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:n])
        with pytest.raises(FormatError, match="expected a whole safetensors file"):
            load(path)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(FormatError, match="expected a whole safetensors file"):
        load(path)
    safetensors.save_file({"weight": np.zeros(2)}, path)
    with pytest.raises(FormatError, match=r"written by iresnet_backends.save, got metadata \[\]"):
        load(path)
    safetensors.save_file({}, path, metadata={"format": "iresnet-ref", "version": "3"})
    with pytest.raises(FormatError, match="expected version 2, got 3"):
        load(path)
    with pytest.raises(FileNotFoundError, match="expected a file"):
        load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="expected like= or backend=, got both"):
        load(path, like=np.zeros(1), backend=get("numpy"))


def test_a_failed_save_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "f"
    save(path, flow(np.zeros(1)))
    before = path.read_bytes()
    lonely = activations.Activation("mine", np.tanh, activations.get("tanh").both, np.cos, 1.0)
    block = ir.ResidualBlock(ir.mlp((2, 4, 2)))
    for bad, message in [
        (ir.Branch((Affine(np.eye(2), np.zeros(2)), Pointwise(lonely)), (2,)), "named activation at layers.1.activation"),
        (object(), "got object at the top"),
        (ir.Flow([block], options=ir.Options(ir.Roulette(ir.roulette.geometric(0.9)))), r"at options\.logdet\.lengths; .*number"),
        (ir.Roulette(ir.roulette.LengthDistribution(lambda k: 2.0 ** (1 - k), 0.5)), "at lengths; try: save with a number"),
        (ir.bijections.ActNorm.uninitialised((2,), digits50().asarray([0.0])), "arbitrary precision"),
    ]:
        with pytest.raises(ir.DTypeError, match=message):
            save(path, bad)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_without_safetensors_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (lambda: save(tmp_path / "f", flow(np.zeros(1))), lambda: load(tmp_path / "f")):
        with pytest.raises(BackendUnavailableError, match=r'pip install "iresnet-ref\[saving\]"'):
            call()
