"""Golden vectors: the reference keeps them, each known mistake is named, a port in another language passes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

import iresnet_ref as ir
from iresnet_ref.layers.by_name import nonlinearity
from iresnet_verify.cli.commands import run
from iresnet_verify.golden import cases, file, vectors
from iresnet_verify.golden.comparison import AnswerError, compare
from iresnet_verify.golden.mistakes import mistakes

VECTORS = file.read()
CASES = {case["id"]: case for case in VECTORS["cases"]}
BLOCKS = [id for id, case in CASES.items() if "x" in case["inputs"]]
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24}


def layer_of(layer: dict[str, Any], dtype: str, image: tuple[int, ...] = ()) -> ir.layers.Layer:
    if layer["kind"] == "affine":
        return ir.layers.Affine(np.asarray(layer["weight"], dtype), np.asarray(layer["bias"], dtype))
    if layer["kind"] == "conv":
        return ir.layers.Conv(np.asarray(layer["weight"], dtype), np.asarray(layer["bias"], dtype), image, layer["padding"])
    if layer["kind"] == "concatenation":
        return ir.layers.Concatenation(tuple(layer_of(inner, dtype) for inner in layer["inner"]))
    return nonlinearity(layer.get("name", layer["kind"]), np.zeros(1, dtype))


def answers(case: dict[str, Any], dtype: str) -> dict[str, Any]:
    """What the reference computes of a case."""
    branch = ir.Branch(tuple(layer_of(layer, dtype, tuple(case["shape"][1:])) for layer in case["layers"]), tuple(case["shape"]))
    block = ir.ResidualBlock(branch)
    x, v, y = (np.asarray(case["inputs"][k], dtype).reshape(-1, *case["shape"]) for k in "xvy")
    n, d = len(x), x[0].size
    J = branch.linearize(x)[1]
    terms, w = [], v
    for _ in range(cases.TERMS):
        w = J.rmatvec(w)
        terms.append((w * v).reshape(n, -1).sum(1))
    by_row = [ir.logdet_gradient(block, x[i : i + 1]) for i in range(n)]
    found = {
        "forward": block(x).reshape(n, d), "jacobian of g": J.dense().reshape(n, d, d), "log det": ir.logdet(block, x, "exact").value,
        "series terms": np.stack(terms, 1), "inverse": ir.invert(block, y, rtol=8 * UNIT[dtype], throw=False).x.reshape(n, d),
        "gradient of log det by x": np.concatenate([g.x_bar.reshape(1, d) for g in by_row]),
    }
    for p in by_row[0].parameters:
        found[f"gradient of log det by {p}"] = np.stack([np.reshape(g.parameters[p], -1) for g in by_row])
    for name in case["quantities"]:
        if name.startswith("norm of "):
            found[name] = ir.spectral.spectral_norm(branch.layers[int(name.rsplit(" ", 1)[1])])
    return {q: np.asarray(numbers, np.float64).tolist() for q, numbers in found.items()}


@pytest.mark.parametrize("dtype", UNIT)
@pytest.mark.parametrize("id", BLOCKS)
def test_the_reference_gives_the_golden_numbers(id: str, dtype: str) -> None:
    given = answers(CASES[id], dtype)
    assert set(given) == set(CASES[id]["quantities"])
    found = compare({"unit roundoff": UNIT[dtype], "cases": {id: given}})
    assert not [c for c in found if not c.right]


MISTAKES = [(case["id"], q) for case in VECTORS["cases"] for q in case["quantities"]]


def test_each_mistake_is_wrong_and_named_and_what_is_twice_too_far_off_is_wrong() -> None:
    """Where two mistakes give the same numbers both are named; the truth in other roundings is none of them."""
    seen: set[str] = set()
    for id, quantity in MISTAKES:
        case, known = CASES[id], CASES[id]["quantities"][quantity]
        truth, amplification = np.asarray(known["value"]), np.asarray(known["amplification"])
        for mistake, numbers in mistakes(case, quantity):
            wrong = np.broadcast_to(numbers, truth.shape)
            with np.errstate(invalid="ignore"):
                apart = np.abs(wrong - truth).reshape(len(np.atleast_1d(truth)), -1).max(1)
            if not (apart > 64 * 2.0**-53 * amplification).any():
                continue  # the same numbers: nothing is wrong
            (found,) = compare({"cases": {id: {quantity: wrong.tolist()}}})
            assert not found.right, (id, quantity, mistake)
            if np.isfinite(wrong).all():
                assert mistake in found.formula.split(" or "), (id, quantity, mistake, found.formula)
                seen.add(mistake)
        off = (2 * (4 * 2.0**-53 * amplification + np.asarray(known["radius"]))).reshape(-1, *(1,) * (truth.ndim - 1))
        (found,) = compare({"cases": {id: {quantity: (truth + off).reshape(truth.shape).tolist()}}})
        assert not found.right
        assert 1.5 < found.error < 2.5
    assert len(seen) > 40, sorted(seen)


def test_float32_numbers_are_wrong_where_float64_is_claimed_and_right_where_float32_is() -> None:
    case = CASES["mlp 3-5-3 tanh"]
    single = {"log det": np.asarray(case["quantities"]["log det"]["value"], np.float32).astype(float).tolist()}
    assert not compare({"unit roundoff": 2.0**-53, "cases": {case["id"]: single}})[0].right
    assert compare({"unit roundoff": 2.0**-24, "cases": {case["id"]: single}})[0].right


@pytest.mark.parametrize("id", ["activation gelu", "mlp 3-5-3 tanh", pytest.param("", marks=pytest.mark.thorough)])
def test_the_file_is_what_ball_arithmetic_gives(id: str) -> None:
    """One activation and one block here, the whole text in the thorough tests. `python -m iresnet_verify.golden.vectors` renews it."""
    if not id:
        assert file.text() == vectors.as_text()
    elif id in BLOCKS:
        assert json.loads(json.dumps(vectors.of_block(id, *cases.blocks()[id]))) == CASES[id]
    else:
        assert json.loads(json.dumps(vectors.of_activation(id.removeprefix("activation ")))) == CASES[id]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"cases": {}}, "at least one quantity"),
        ({"cases": {"no such": {"forward": [1.0]}}}, "expected one of the cases"),
        ({"cases": {"linear 3": {"no such": [1.0]}}}, "expected one of the quantities of linear 3"),
        ({"cases": {"linear 3": {"forward": [1.0]}}}, "expected numbers of shape (3, 3), got (1,)"),
        ({"cases": {"linear 3": {"forward": "many"}}}, "expected numbers of shape (3, 3)"),
        ({"cases": {"linear 3": [1.0]}}, "expected an object of quantities"),
        ({"unit roundoff": 0, "cases": {"linear 3": {"forward": [1.0]}}}, "expected a number in (0, 1/16]"),
    ],
)
def test_answers_that_cannot_be_compared_say_why(answer: dict[str, Any], said: str, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(AnswerError, match=said.replace("(", r"\(").replace(")", r"\)").replace("[", ".").replace("]", ".")):
        compare(answer)
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(answer), encoding="utf-8")
    assert run(["compare", str(path)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_what_is_not_finite_is_wrong() -> None:
    for nothing in (float("nan"), float("inf")):
        (found,) = compare({"cases": {"linear 3": {"log det": [nothing] * 3}}})
        assert not found.right
        assert found.error == float("inf")


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js here")
def test_a_port_in_javascript_passes_and_its_mistake_is_named(tmp_path: Path, capsys: Any) -> None:
    assert run(["golden", "--json", str(tmp_path / "vectors.json"), "--npz", str(tmp_path / "vectors.npz")]) == 0
    with np.load(tmp_path / "vectors.npz") as arrays:
        assert arrays["linear 3/log det/value"].tolist() == CASES["linear 3"]["quantities"]["log det"]["value"]
    program = (ROOT / "docs/ports.md").read_text(encoding="utf-8").split("```js\n")[1].split("```")[0]

    def judged(text: str) -> int:
        (tmp_path / "port.js").write_text(text, encoding="utf-8")
        subprocess.run(["node", "port.js", "vectors.json", "answers.json"], cwd=tmp_path, check=True, timeout=60)
        return run(["compare", str(tmp_path / "answers.json")])

    assert judged(program) == 0
    assert "20 of 20 quantities of 5 cases are right" in capsys.readouterr().out
    without = program.replace("v + Number(i === j))))),", "v)))),")
    assert without != program
    assert judged(without) == 1
    assert "the identity is missing" in " ".join(capsys.readouterr().out.split())
