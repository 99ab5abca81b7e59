"""The bias of a truncated log-determinant, against the exact one, as flows of 8×8 digits are trained: it grows with capacity.

    python examples/paper/images_bias.py

The same flow (recipes/bias.toml) is trained with the series cut after five terms, as in [B19], and with the unbiased estimate of
[C19], at three Lipschitz constants. After every few steps both are measured on held-out images: bits per dimension by the exact
determinant of every block, and what the truncated series says in expectation, from the Jacobians themselves, so that the
difference is its bias and nothing else. Writes `images-bias.png`, `.json` and `.md` to reports/examples/. Compare [C19] Fig. 3.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import _recipes
from _image_measures import bits, truncation_bias
from _running import like as array_of
from _running import parser, pyplot, write
from images import train

import iresnet_ref as ir
from iresnet_ref.training import State

TERMS = (5, 10)
"""Lengths of the truncated series that are measured; the first is trained with."""


def study(recipe: _recipes.Recipe, rows: int, every: int, like: Any) -> list[dict[str, Any]]:
    """Return one row of measurements for each moment of one training: its bits per dimension, and each series' bias."""
    pixels, held_out, levels, _ = _recipes.images(recipe, None)
    found: list[dict[str, Any]] = []

    def measure(state: State) -> None:
        flow = state.averaged
        exact = bits(flow, held_out[:rows], like, ir.Options(method="exact"))
        row: dict[str, Any] = {
            "lipschitz": recipe.lipschitz, "trained with": recipe.training.estimator, "step": state.step,
            "bits per dimension": exact.mean, "standard error": exact.standard_error,
        }  # fmt: skip
        for terms, bias in truncation_bias(flow, held_out[:rows], like, TERMS).items():
            row[f"bias of {terms} terms"] = float(bias.mean())
            row[f"its error, {terms}"] = float(bias.std(ddof=1) / len(bias) ** 0.5)
        found.append(row)

    title = f"c = {recipe.lipschitz:g}, {recipe.training.estimator}"
    train(recipe, pixels, levels, like, title=title, each=lambda state: None if state.step % every else measure(state))
    return found


def draw(rows: list[dict[str, Any]], path: Any) -> None:
    """Write the curves: left the bias of five terms over training, right what it does to a flow trained with it."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.8))
    constants = sorted({row["lipschitz"] for row in rows})
    first = TERMS[0]
    for constant, colour in zip(constants, ("tab:blue", "tab:orange", "tab:red"), strict=False):
        for trained, style in (("series", "-"), ("roulette", "--")):
            mine = [row for row in rows if row["lipschitz"] == constant and row["trained with"] == trained]
            label = f"c = {constant:g}, trained {'with the series' if trained == 'series' else 'unbiased'}"
            left.plot([r["step"] for r in mine], [r[f"bias of {first} terms"] for r in mine], style, color=colour, label=label)
    left.axhline(0.0, color="gray", linewidth=0.6)
    left.set(xlabel="training step", ylabel="bits per dimension", title=f"series of {first} terms minus exact, held out")
    left.legend(fontsize=7)
    top = constants[-1]
    for trained, colour, name in (("series", "tab:red", f"{first} terms"), ("roulette", "tab:green", "unbiased")):
        mine = [row for row in rows if row["lipschitz"] == top and row["trained with"] == trained]
        steps, exact = [r["step"] for r in mine], [r["bits per dimension"] for r in mine]
        right.plot(steps, exact, "-", color=colour, label=f"trained {name}: exact")
        if trained == "series":
            promised = [r["bits per dimension"] + r[f"bias of {first} terms"] for r in mine]
            right.plot(steps, promised, ":", color=colour, label=f"trained {name}: what {first} terms promise")
    right.set(xlabel="training step", ylabel="bits per dimension", title=f"c = {top:g}, held out")
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    made = parser("The bias of a truncated log-determinant over training.", rows=48, every=50)
    made.set_defaults(seed=None, dtype=None)
    made.add_argument("--constants", default="0.5,0.9,0.97", help="Lipschitz constants, separated by commas")
    made.add_argument("--steps", type=int, help="instead of the recipe's")
    asked = made.parse_args(arguments)
    recipe = _recipes.read("bias")
    recipe = replace(recipe, dtype=asked.dtype or recipe.dtype, seed=recipe.seed if asked.seed is None else asked.seed)
    steps = recipe.training.steps if asked.steps is None else asked.steps
    like = array_of(argparse.Namespace(backend=asked.backend, dtype=recipe.dtype))
    rows: list[dict[str, Any]] = []
    begun = time.perf_counter()
    for constant in (float(c) for c in asked.constants.split(",")):
        for estimator in ("series", "roulette"):
            training = replace(recipe.training, steps=steps, estimator=estimator, terms=TERMS[0])
            rows += study(replace(recipe, lipschitz=constant, training=training), asked.rows, asked.every, like)
    last = [row for row in rows if row["step"] == steps]
    write(asked.folder, "images-bias", last, all=rows, seconds=round(time.perf_counter() - begun, 1))
    if not asked.no_figure:
        draw(rows, asked.folder / "images-bias.png")
    return rows


if __name__ == "__main__":
    main()
