"""The pictures of the README: what *proved*, *bounded* and *searched* mean, and a terminal at work.

    python examples/pictures.py kinds      docs/pictures/proved-bounded-searched.svg
    python examples/pictures.py terminal   docs/pictures/terminal.svg
    python examples/pictures.py report     docs/report.png, with chromium

Every number in them is computed here: the certificate, the confidence sequence and the search are those of the audit.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PICTURES = Path(__file__).resolve().parents[1] / "docs/pictures"
ALPHA, EPSILON = 1e-6, 0.04
"""Error rate; and ε = .02·d nats, as at the standard budget."""
DRAWS, EVALUATIONS = 30_000, 3000


def kinds() -> None:
    """Three panels on one network: a proof for all x, a statement with an error rate, and a search that can only refute."""
    import matplotlib as mpl
    import numpy as np

    import iresnet_ref as ir
    from iresnet_verify.statistics import confidence_sequences as sequences

    mpl.use("svg")
    from matplotlib import pyplot as plt

    F = ir.ResidualBlock(ir.mlp((2, 4, 2), activation="tanh", lipschitz=0.9, seed=3))
    L = ir.certify(F).bound
    rng = np.random.default_rng(0)
    x = rng.standard_normal((EVALUATIONS, 2)) * np.exp(rng.uniform(-3.0, 3.0, (EVALUATIONS, 1)))
    stretch = np.linalg.norm(np.asarray(F.branch.linearize(x)[1].dense()), ord=2, axis=(1, 2))

    at = x[[stretch.argmax()]]
    x0 = np.repeat(at, DRAWS, axis=0)
    lengths = ir.roulette.geometric(0.7)
    draws = np.asarray(ir.logdet(F, x0, ir.Roulette(lengths=lengths, probes=ir.Probes(seed=1))).value)
    truth = float(np.asarray(ir.logdet(F, at, "exact").value)[0])
    bound = 2 * sum(L**k / (k * lengths.survival(k)) for k in range(1, 200))
    band = sequences.betting(draws - truth, -bound - truth, bound - truth, ALPHA)

    plt.rcParams.update({"font.size": 9, "svg.fonttype": "path", "axes.spines.top": False, "axes.spines.right": False})
    figure, (proved, bounded, searched) = plt.subplots(1, 3, figsize=(10.6, 3.3), layout="constrained")
    blue, red, green, grey = "#1d5a8e", "#a01d16", "#28713f", "#9a968c"

    proved.barh([2, 1, 0], [0.9, L, stretch.max()], color=[grey, blue, "none"], edgecolor=[grey, blue, red], height=0.55)
    said = {"largest found by search": stretch.max(), "proved, for every x": L, "product of the norms": 0.9}
    for row, (text, value) in enumerate(said.items()):
        proved.text(value + 0.02, row, f"{value:.3f}", va="center")
        proved.text(0.0, row + 0.36, text, va="bottom", color="#444")
    proved.set(xlim=(0, 1.1), ylim=(-0.5, 2.9), yticks=[], xlabel="Lip(g)", title="proved: Lip(g) ≤ " + f"{L:.3f}")

    n = band.draws
    bounded.axhspan(-EPSILON, EPSILON, color=green, alpha=0.14, lw=0)
    bounded.fill_between(n, band.low, band.high, color=blue, alpha=0.25, lw=0)
    bounded.plot(n, band.mean, color=blue)
    inside = n[np.argmax((band.low > -EPSILON) & (band.high < EPSILON))]
    bounded.axvline(inside, color=grey, ls=":", lw=1)
    bounded.text(inside * 0.95, -0.19, f"passed after {inside} draws", color="#444", ha="right")
    bounded.set(xscale="log", xlim=(30, DRAWS), ylim=(-0.2, 0.2), xlabel="draws of the random log-det", ylabel="mean − truth, nats",
                title=f"bounded: |bias| ≤ {EPSILON} at error rate 10⁻⁶")

    running = np.maximum.accumulate(stretch)
    claim = 0.47
    searched.plot(np.arange(1, EVALUATIONS + 1), running, color=blue)
    searched.axhline(L, color=blue, ls="--", lw=1)
    searched.axhline(claim, color=red, ls="--", lw=1)
    searched.text(1.2, L + 0.012, f"claim {L:.3f}: not refuted in {EVALUATIONS} evaluations", color=blue)
    first = int(np.argmax(running > claim))
    refuted = running.max() > claim
    searched.text(1.2, claim + 0.012, f"claim {claim}: " + (f"refuted at x number {first + 1}" if refuted else "not refuted"), color=red)
    if refuted:
        searched.plot(first + 1, running[first], "o", color=red)
    searched.set(xscale="log", xlim=(1, EVALUATIONS), ylim=(0, 0.68), xlabel="evaluations", ylabel="largest ‖J_g(x)‖₂ so far",
                 title="searched: a pass says how hard")
    figure.savefig(PICTURES / "proved-bounded-searched.svg", facecolor="white", metadata={"Date": None})


MODEL = """\
import torch

class Flow(torch.nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((dim,), 0.5, dtype=torch.float64))
    def forward(self, x):
        return x + self.scale * torch.tanh(x)
    def inverse(self, y):
        x = y
        for _ in range(60):
            x = y - self.scale * torch.tanh(x)
        return x
    def log_det(self, x):  # the sign is that of the inverse
        return -torch.log1p(self.scale * (1 - torch.tanh(x) ** 2)).sum(1)
"""
COMMANDS = (
    "iresnet-verify init my_model.py:Flow",
    "iresnet-verify audit audit_my_model.py:make_subject --budget quick --select inverse.*,logdet.m*,hygiene.readable",
)
WIDTH, SECONDS = 100, 20.0


def terminal() -> None:
    """Run the commands, and draw what they print as it appeared, scaled to 20 seconds."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "my_model.py").write_text(MODEL, "utf-8")
        started = time.monotonic()
        for command in COMMANDS:
            console.print(Text.from_markup(f"[bold green]$[/] [bold]{command}[/]"))
            environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "PYTHONUNBUFFERED": "1"}
            shell = [sys.executable, "-m", "iresnet_verify", *command.split()[1:]]
            with subprocess.Popen(
                shell, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            ) as running:
                assert running.stdout is not None
                for line in running.stdout:
                    console.print(Text.from_ansi(line.rstrip("\n").replace(folder + "/", "")), no_wrap=True, crop=True)
                    times += [time.monotonic() - started] * (console.export_text(clear=False).count("\n") - len(times))
    picture = console.export_svg(title="iresnet-verify", clear=False)
    picture = re.sub(r"<!--.*?-->", "", picture)
    picture = re.sub(r"@font-face\s*\{.*?\}", "", picture, flags=re.DOTALL)  # a picture loads nothing
    scale = (SECONDS - 2.0) / max(times[-1], 1e-9)
    delays = "".join(f".n{k}{{animation-delay:{scale * at:.2f}s}}" for k, at in enumerate(times))
    style = f"text[class*=n]{{animation:appear .01s backwards}}@keyframes appear{{from{{opacity:0}}}}{delays}"
    style += "@media (prefers-reduced-motion:reduce){text{animation:none!important}}"
    picture = picture.replace("</style>", style + "</style>", 1)
    picture = re.sub(r'class="(\S+-r\d+)"([^>]*clip-path="url\(#\S+-line-(\d+)\)")', r'class="\1 n\3"\2', picture)
    (PICTURES / "terminal.svg").write_text(picture, "utf-8")


def report() -> None:
    """The first screen of the report on the same network."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "my_model.py").write_text(MODEL, "utf-8")
        for command in (["init", "my_model.py:Flow"], ["audit", "audit_my_model.py:make_subject", "--budget", "quick", "--html", "r.html"]):
            subprocess.run([sys.executable, "-m", "iresnet_verify", *command], cwd=folder, check=False, stdout=subprocess.DEVNULL)
        subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,900",
                        f"--user-data-dir={folder}/profile", f"--screenshot={PICTURES.parent / 'report.png'}",
                        Path(folder, "r.html").as_uri()], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    {"kinds": kinds, "terminal": terminal, "report": report}[sys.argv[1]]()
