"""The bias of a truncated log-determinant, against the exact one, as flows of 8×8 digits are trained: it grows with capacity.

    python examples/paper/images_bias.py

The same flow (recipes/bias.toml) is trained with the series cut after five terms, as in [B19], and with the unbiased estimate of
[C19], at three Lipschitz constants. After every few steps both are measured on held-out images: bits per dimension by the exact
determinant of every block, and what the truncated series says in expectation, from the Jacobians themselves, so that the
difference is its bias and nothing else. Writes `images-bias.png`, `.json` and `.md` to reports/examples/. [C19] shows such a
gap on CIFAR-10.
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
from iresnet_ref.training.loop import State

TERMS = (5, 10)
"""Lengths of the truncated series that are measured; the first is trained with."""


def study(recipe: _recipes.Recipe, rows: int, every: int, like: Any) -> list[dict[str, Any]]:
    """Return one row of measurements for each moment of one training: its bits per dimension, and each series' bias."""
    pixels, held_out, levels, _ = _recipes.images(recipe, None)
    found: list[dict[str, Any]] = []

    def measure(state: State) -> None:
        flow = state.averaged
        exact = bits(flow, held_out[:rows], like, ir.Options(logdet="exact"))
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
    """Write the bias over training: left of the series that was trained with, right of both on a logarithmic scale."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.9))
    constants = sorted({row["lipschitz"] for row in rows})
    first, longer = TERMS
    for constant, colour in zip(constants, ("tab:blue", "tab:orange", "tab:red", "tab:purple"), strict=False):
        for trained, style in (("series", "-"), ("roulette", "--")):
            mine = [row for row in rows if row["lipschitz"] == constant and row["trained with"] == trained]
            steps = [row["step"] for row in mine]
            words = f"c = {constant:g}, trained {'with it' if trained == 'series' else 'unbiased'}"
            bias, error = ([row[f"{what} {first}{end}"] for row in mine] for what, end in (("bias of", " terms"), ("its error,", "")))
            left.errorbar(steps, bias, error, fmt=style, color=colour, label=words, capsize=2, linewidth=1.2)
            if trained == "roulette":
                for terms, dash in ((first, "-"), (longer, ":")):
                    size = [max(1e-12, -row[f"bias of {terms} terms"]) for row in mine[1:]]
                    right.semilogy(steps[1:], size, dash, marker=".", color=colour, label=f"c = {constant:g}, {terms} terms")
    left.axhline(0.0, color="gray", linewidth=0.6)
    left.set(xlabel="training step", ylabel="bits per dimension", title=f"series of {first} terms minus determinant, held out")
    right.set(xlabel="training step", ylabel="minus the bias", title="flows trained unbiased")
    for axis in (left, right):
        axis.legend(fontsize=7)
        axis.title.set_fontsize(10)
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
    begun = time.process_time()
    for constant in (float(c) for c in asked.constants.split(",")):
        for estimator in ("series", "roulette"):
            training = replace(recipe.training, steps=steps, estimator=estimator, terms=TERMS[0])
            rows += study(replace(recipe, lipschitz=constant, training=training), asked.rows, asked.every, like)
    last = [row for row in rows if row["step"] == steps]
    write(asked.folder, "images-bias", last, all=rows, cpu_seconds=round(time.process_time() - begun, 1))
    if not asked.no_figure:
        draw(rows, asked.folder / "images-bias.png")
    return rows


if __name__ == "__main__":
    main()
