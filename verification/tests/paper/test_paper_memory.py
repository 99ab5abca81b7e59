"""examples/paper/memory.py in small: flat where activations are rebuilt, growing where they are stored, the same gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
from examples_of_the_paper import paper


@pytest.mark.thorough
def test_memory_is_flat_where_activations_are_rebuilt(tmp_path: Path) -> None:
    for package in ("torch", "mlxtend", "matplotlib"):
        pytest.importorskip(package)
    c, batch, deepest = 0.5, 16, 4
    options = ["--channels", "4", "--batch", str(batch), "--lipschitz", str(c), "--autograd", "2", "--folder", str(tmp_path)]
    rows = paper("memory").main(["--blocks", str(deepest), *options])
    assert [(row["log-det"], row["blocks"]) for row in rows] == [(v, n) for v in ("no", "yes") for n in (2, 4)]
    array = batch * 784 * 8 / 1e6  # one activation, megabytes
    for shallow, deep in (rows[:2], rows[2:]):  # two blocks more
        assert deep["rebuilt by inversion, MB"] - shallow["rebuilt by inversion, MB"] < 0.5 * array
        grown = {name: deep[name] - shallow[name] for name in deep if name.endswith("MB") and deep[name] != "–"}
        assert grown["inputs of blocks stored, MB"] > 0.95 * 2 * array
        if deep["log-det"] == "no":
            layers = 1.0 + 4 * (4 / 16)  # inputs of five layers, four of them of four channels
            assert grown["all activations stored, MB"] > 0.95 * 2 * layers * array
            assert grown["kept by autograd, MB"] > 0.95 * 2 * array
        else:
            assert grown["backward-in-forward, MB"] > 0.95 * 2 * 2 * array
            assert deep["kept by autograd, MB"] == "–"
            assert shallow["kept by autograd, MB"] > 2 * 10 * array
        # rtol = u^(3/4) a block, amplified by at most 1/(1 − c) in each that follows
        assert deep["gradient error"] < deepest * 2.0 ** (-53 * 0.75) / (1.0 - c) ** deepest
        assert deep["time ratio"] > 0.0
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


def test_only_memory_that_is_seen_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlxtend")
    with pytest.raises(SystemExit):
        paper("memory").main(["--backend", "torch:cpu"])
    assert "expected numpy" in capsys.readouterr().err
