"""Shapes of torch modules as published packages have them, and what `from_torch` makes of each: a branch, or a refusal with this reason.

docs/modules.md is generated from this table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations, prune


@dataclass(frozen=True)
class Shape:
    """`make()` is the module, for events of shape `event`; `refused` is a part of the reason, None where it is taken."""

    source: str
    name: str
    make: Callable[[], Any]
    event: tuple[int, ...]
    refused: str | None = None
    package: str = "torch"

    @property
    def installed(self) -> bool:
        return find_spec(self.package) is not None


def mlp(activation: Callable[[], Any], *sizes: int) -> Any:
    parts: list[Any] = []
    for a, b in pairwise(sizes):
        parts += [nn.Linear(a, b), activation()]
    return nn.Sequential(*parts[:-1])


class ResMLP(nn.Module):
    """Pre-activation residual blocks (nflows, RealNVP, score networks)."""

    def __init__(self, features: int = 6, hidden: int = 8) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(features, hidden), nn.Linear(hidden, features)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)]) for _ in range(2)
        )

    def forward(self, x: Any) -> Any:
        h = self.enter(x)
        for first, second in self.blocks:
            h = h + second(torch.relu(first(torch.relu(h))))
        return self.leave(h)


class BasicBlock(nn.Module):
    """ResNet's, stride 1, as in torchvision: BatchNorm, ReLU in place, the skip added in place."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class InvertedResidual(nn.Module):
    """MobileNet v2 / v3: expand, depthwise, project, skip."""

    def __init__(self, activation: Callable[[], Any]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 12, 1, bias=False), nn.BatchNorm2d(12), activation(),
            nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12), activation(),
            nn.Conv2d(12, 3, 1, bias=False), nn.BatchNorm2d(3),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        return x + self.body(x)


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 3, 1)

    def forward(self, x: Any) -> Any:
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class DenseLayer(nn.Module):
    """DenseNet: what was there and what is new, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.grow, self.join = nn.Linear(4, 3), nn.Linear(7, 4)

    def forward(self, x: Any) -> Any:
        return self.join(torch.cat([x, torch.relu(self.grow(x))], 1))


class Swish(nn.Module):
    """Residual Flows: x σ(x softplus(β))/1.1."""

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor([0.5]))

    def forward(self, x: Any) -> Any:
        return (x * torch.sigmoid_(x * nn.functional.softplus(self.beta))).div_(1.1)


def one_swish() -> Any:
    swish = Swish()
    return nn.Sequential(swish, nn.Linear(3, 8), swish, nn.Linear(8, 3))


class Siren(nn.Module):
    """sin(30(Wx + b))."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.last(torch.sin(30.0 * self.first(x)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.inner(x, x, x)[0]


class Gated(nn.Module):
    """A gated linear unit (WaveNet, PixelCNN)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        return torch.tanh(self.a(x)) * torch.sigmoid(self.b(x))


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: Any) -> Any:
        return self.inner(x) if x.sum() > 0 else -self.inner(x)


class Noisy(nn.Module):
    """A noisy layer (NoisyNet): other weights at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: Any) -> Any:
        return self.inner(x) + 0.1 * torch.randn(3, dtype=x.dtype)


class WholeBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: Any) -> Any:
        return self.inner(x - x.mean(0))


class Mixer(nn.Module):
    """MLP-Mixer's token mixing: axes exchanged, dense on each, skip."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.channels = mlp(nn.GELU, 5, 8, 5), mlp(nn.GELU, 4, 8, 4)

    def forward(self, x: Any) -> Any:
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        return x + self.channels(x)


class Unet(nn.Module):
    """One level of a U-Net by addition: down by pooling, up by a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down, self.up = (
            nn.Conv2d(2, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.ConvTranspose2d(4, 4, 2, 2),
        )
        self.leave = nn.Conv2d(4, 2, 1)

    def forward(self, x: Any) -> Any:
        high = nn.functional.silu(self.enter(x))
        low = nn.functional.silu(self.down(nn.functional.avg_pool2d(high, 2)))
        return self.leave(high + self.up(low))


def hooked_weight_norm() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 8)), nn.ELU(), nn.Linear(8, 4))
    with torch.no_grad():
        net[0].weight_g.mul_(1.5)
    return net


def pruned() -> Any:
    net = mlp(nn.ReLU, 4, 8, 4)
    prune.l1_unstructured(net[0], "weight", 0.4)
    return net


def zuko_mlp(**settings: Any) -> Any:
    import zuko

    return zuko.nn.MLP(4, 4, [8, 8], **settings)


def masked(package: str, **settings: Any) -> Any:
    if package == "zuko":
        import zuko

        return zuko.nn.MaskedMLP(torch.ones(4, 4).tril(-1).bool(), [8, 8], **settings)
    made = __import__(f"{package}.{'transforms' if package == 'nflows' else 'nets'}.made", fromlist=["MADE"]).MADE
    return made(4, 8, num_blocks=2, **settings)


def of(path: str, *args: Any, **settings: Any) -> Callable[[], Any]:
    """Return a constructor that imports its class when it is called: "package.module.Class"."""
    module, _, name = path.rpartition(".")
    return lambda: getattr(__import__(module, fromlist=[name]), name)(*args, **settings)


def subnet(package: str, kind: str) -> Any:
    """FrEIA's fully connected and convolutional subnets, as its tutorials construct them."""
    del package
    if kind == "dense":
        return nn.Sequential(nn.Linear(4, 512), nn.ReLU(), nn.Linear(512, 4))
    return nn.Sequential(nn.Conv2d(2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 2, 3, padding=1))


image, line = (2, 6, 6), (3, 12)
conv = nn.Conv2d
MODULES: tuple[Shape, ...] = (
    Shape("FFJORD, FrEIA tutorials", "dense, tanh", lambda: mlp(nn.Tanh, 3, 16, 16, 3), (3,)),
    Shape(
        "i-ResNet toy",
        "dense, ELU, spectral norm",
        lambda: nn.Sequential(
            parametrizations.spectral_norm(nn.Linear(2, 16)), nn.ELU(), parametrizations.spectral_norm(nn.Linear(16, 2))
        ),
        (2,),
    ),
    Shape(
        "SNGAN",
        "older spectral norm by hooks",
        lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 4)),
        (4,),
    ),
    Shape("WaveGlow", "weight norm by hooks, g moved since", hooked_weight_norm, (4,)),
    Shape(
        "torch",
        "weight norm as parametrisation",
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 8)), nn.Tanh(), nn.Linear(8, 4)),
        (4,),
    ),
    Shape(
        "torch",
        "orthogonal as parametrisation",
        lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4)), nn.ELU()),
        (4,),
    ),
    Shape("torch", "pruned", pruned, (4,)),
    *(
        Shape("torch", f"dense, {kind.__name__}", lambda kind=kind: mlp(kind, 4, 8, 4), (4,))
        for kind in (
            nn.ReLU,
            nn.LeakyReLU,
            nn.ELU,
            nn.SELU,
            nn.CELU,
            nn.GELU,
            nn.SiLU,
            nn.Mish,
            nn.Sigmoid,
            nn.LogSigmoid,
            nn.Softsign,
            nn.Tanhshrink,
            nn.Hardtanh,
            nn.Hardswish,
            nn.Hardsigmoid,
            nn.ReLU6,
            nn.Softshrink,
            nn.PReLU,
            nn.RReLU,
            nn.Softplus,
        )
    ),
    Shape("GPT-2", "dense, GELU by tanh", lambda: mlp(lambda: nn.GELU(approximate="tanh"), 4, 16, 4), (4,)),
    Shape(
        "torch", "dense, Softplus(beta=3)", lambda: mlp(lambda: nn.Softplus(beta=3.0, threshold=60.0), 4, 8, 4), (4,)
    ),
    Shape(
        "SELU networks",
        "dense, SELU, AlphaDropout",
        lambda: nn.Sequential(nn.Linear(4, 8), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(8, 4)),
        (4,),
    ),
    Shape(
        "nflows MLP",
        "dense, BatchNorm, Dropout",
        lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 4)),
        (4,),
    ),
    Shape("SIREN", "sin(30(Wx + b))", Siren, (3,)),
    Shape(
        "Residual Flows",
        "dense, swish with a learnt slope over 1.1",
        lambda: nn.Sequential(nn.Linear(3, 8), Swish(), nn.Linear(8, 3)),
        (3,),
    ),
    Shape("Residual Flows", "one Swish object at every place", one_swish, (3,)),
    Shape(
        "Keras-like",
        "Flatten, dense, Unflatten",
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(18, 9), nn.Tanh(), nn.Linear(9, 18), nn.Unflatten(1, (2, 3, 3))),
        (2, 3, 3),
    ),
    Shape("nflows ResidualNet", "pre-activation residual blocks", ResMLP, (6,)),
    Shape("DenseNet", "concatenated features", DenseLayer, (4,)),
    Shape("ResNet", "BasicBlock, ReLU and sum in place", BasicBlock, (3, 6, 6)),
    Shape("MobileNet v2", "inverted residual, ReLU6", lambda: InvertedResidual(nn.ReLU6), (3, 6, 6)),
    Shape("MobileNet v3", "inverted residual, Hardswish", lambda: InvertedResidual(nn.Hardswish), (3, 6, 6)),
    Shape("EfficientNet", "squeeze and excitation", SqueezeExcite, (3, 4, 4), "two values that depend on the input"),
    Shape("MLP-Mixer", "token and channel mixing", Mixer, (5, 4)),
    Shape("U-Net", "one level by addition", Unet, (2, 6, 6)),
    Shape(
        "VGG",
        "3×3 convolutions, ReLU",
        lambda: nn.Sequential(conv(2, 4, 3, padding=1), nn.ReLU(), conv(4, 2, 3, padding=1)),
        image,
    ),
    Shape(
        "VGG",
        "max pooling",
        lambda: nn.Sequential(conv(2, 8, 3, padding=1), nn.MaxPool2d(2), nn.PixelShuffle(2)),
        image,
        "max_pool2d at 1",
    ),
    Shape(
        "i-ResNet",
        "circular padding",
        lambda: nn.Sequential(conv(2, 4, 3, padding=1, padding_mode="circular"), nn.ELU(), conv(4, 2, 1)),
        image,
    ),
    Shape(
        "torch",
        "reflected padding",
        lambda: nn.Sequential(conv(2, 2, 3, padding=1, padding_mode="reflect"), nn.ELU()),
        image,
    ),
    Shape(
        "DCGAN",
        "strided down, transposed up",
        lambda: nn.Sequential(conv(2, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.ConvTranspose2d(4, 2, 4, 2, 1), nn.Tanh()),
        image,
    ),
    Shape(
        "sub-pixel",
        "strided, PixelShuffle",
        lambda: nn.Sequential(conv(2, 8, 2, 2), nn.SiLU(), nn.PixelShuffle(2)),
        image,
    ),
    Shape(
        "DeepLab", "dilated convolution", lambda: nn.Sequential(conv(2, 2, 3, padding=2, dilation=2), nn.ReLU()), image
    ),
    Shape(
        "ResNeXt",
        "grouped convolution",
        lambda: nn.Sequential(conv(4, 4, 3, padding=1, groups=2), nn.ReLU()),
        (4, 6, 6),
    ),
    Shape(
        "StyleGAN",
        "average pooling, bilinear upsampling",
        lambda: nn.Sequential(conv(2, 2, 3, padding=1), nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")),
        image,
    ),
    Shape(
        "torch",
        "global average pooling, dense back",
        lambda: nn.Sequential(
            conv(2, 4, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 72),
            nn.Unflatten(1, image),
        ),
        image,
    ),
    Shape(
        "WaveNet",
        "dilated causal 1-d convolution",
        lambda: nn.Sequential(nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(3, 3, 2, dilation=2), nn.Tanh()),
        line,
    ),
    Shape(
        "TCN",
        "1-d convolutions that keep the length",
        lambda: nn.Sequential(nn.Conv1d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv1d(6, 3, 5, padding=2)),
        line,
    ),
    Shape("C3D", "3-d convolution", lambda: nn.Sequential(nn.Conv3d(1, 1, 3, padding=1), nn.ReLU()), (1, 4, 4, 4)),
    Shape(
        "torch",
        "strided on a large image",
        lambda: nn.Sequential(conv(3, 12, 2, 2), nn.PixelShuffle(2)),
        (3, 48, 48),
        r"at most 4096.*conv2d.*6912",
    ),
    Shape(
        "Glow",
        "3×3, 1×1, 3×3 convolutions on a large image",
        lambda: nn.Sequential(conv(3, 8, 3, padding=1), nn.ReLU(), conv(8, 8, 1), nn.ReLU(), conv(8, 3, 3, padding=1)),
        (3, 40, 40),
    ),
    Shape("FrEIA tutorial", "dense subnet of 512", lambda: subnet("FrEIA", "dense"), (4,)),
    Shape("FrEIA tutorial", "convolutional subnet", lambda: subnet("FrEIA", "conv"), image),
    Shape("Transformer", "LayerNorm", lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)), (4,), "layer_norm at 0"),
    Shape("Llama", "RMSNorm", lambda: nn.Sequential(nn.RMSNorm(4), nn.Linear(4, 4)), (4,), "rms_norm at 0"),
    Shape("Transformer", "multi-head attention", Attention, (3, 4), "transpose at inner"),
    Shape(
        "DDPM",
        "GroupNorm",
        lambda: nn.Sequential(conv(4, 4, 3, padding=1), nn.GroupNorm(2, 4)),
        (4, 4, 4),
        "group_norm at 1",
    ),
    Shape(
        "style transfer",
        "InstanceNorm",
        lambda: nn.Sequential(conv(2, 2, 3, padding=1), nn.InstanceNorm2d(2)),
        image,
        "instance_norm at 1",
    ),
    Shape(
        "torch",
        "BatchNorm without running statistics",
        lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)),
        (4,),
        "running statistics",
    ),
    Shape("PixelCNN", "gated linear unit", Gated, (4,), "two values that depend on the input"),
    Shape("torch", "GLU", lambda: nn.Sequential(nn.Linear(4, 8), nn.GLU()), (4,), "glu at 1"),
    Shape("torch", "Softmax", lambda: nn.Sequential(nn.Linear(4, 4), nn.Softmax(1)), (4,), "softmax at 1"),
    Shape(
        "torch",
        "Hardshrink, which jumps",
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Hardshrink()),
        (4,),
        "hardshrink at 1.*it jumps",
    ),
    Shape(
        "torch",
        "Softplus(threshold=1), which jumps",
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Softplus(threshold=1.0)),
        (4,),
        "threshold=1, where it jumps",
    ),
    Shape(
        "PReLU networks",
        "PReLU for each channel",
        lambda: nn.Sequential(nn.Linear(4, 4), nn.PReLU(4)),
        (4,),
        "one slope for all channels",
    ),
    Shape("torch", "LSTM", lambda: nn.LSTMCell(4, 4), (4,), "zeros at the module"),
    Shape("torch", "a forward that decides on its input", Deciding, (3,), "sum at the module"),
    Shape("NoisyNet", "noise at every call", Noisy, (3,), "without random numbers"),
    Shape("torch", "statistics of the batch", WholeBatch, (3,), "rows of its batch"),
    Shape("normflows", "nets.MLP, leaky", of("normflows.nets.MLP", [4, 8, 4], leaky=0.1), (4,), package="normflows"),
    Shape(
        "normflows",
        "nets.LipschitzMLP",
        of("normflows.nets.LipschitzMLP", [3, 16, 3], init_zeros=False),
        (3,),
        package="normflows",
    ),
    Shape(
        "normflows",
        "nets.LipschitzCNN",
        of("normflows.nets.LipschitzCNN", [2, 4, 2], [3, 3], init_zeros=False),
        image,
        package="normflows",
    ),
    Shape("normflows", "nets.ResidualNet", of("normflows.nets.ResidualNet", 4, 4, 8), (4,), package="normflows"),
    Shape(
        "normflows",
        "nets.ConvNet2d",
        of("normflows.nets.ConvNet2d", [2, 4, 4, 2], [3, 1, 3]),
        image,
        package="normflows",
    ),
    Shape("normflows", "nets.MADE", lambda: masked("normflows"), (4,), package="normflows"),
    Shape("nflows", "nets.MLP", of("nflows.nn.nets.MLP", [4], [4], [8, 8]), (4,), package="nflows"),
    Shape(
        "nflows",
        "nets.ResidualNet",
        of("nflows.nn.nets.ResidualNet", 4, 4, 8, use_batch_norm=True),
        (4,),
        package="nflows",
    ),
    Shape("nflows", "nets.ConvResidualNet", of("nflows.nn.nets.ConvResidualNet", 2, 2, 4), image, package="nflows"),
    Shape("nflows", "MADE, residual blocks", lambda: masked("nflows"), (4,), package="nflows"),
    Shape("zuko", "nn.MLP", zuko_mlp, (4,), package="zuko"),
    Shape("zuko", "nn.MLP, normalised", lambda: zuko_mlp(normalize=True), (4,), "var_mean", package="zuko"),
    Shape("zuko", "nn.MaskedMLP", lambda: masked("zuko"), (4,), package="zuko"),
    Shape("zuko", "nn.MaskedMLP, residual", lambda: masked("zuko", residual=True), (4,), package="zuko"),
    Shape("zuko", "nn.MonotonicMLP", of("zuko.nn.MonotonicMLP", 4, 4, [8, 8]), (4,), package="zuko"),
)


def seeded(shape: Shape) -> Any:
    """Return the module with weights away from their initial ones, statistics of BatchNorm included, in evaluation mode."""
    state = torch.get_rng_state()
    try:
        torch.manual_seed(3)
        net = shape.make()
        for part in net.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2.0)
        net.eval()
        with torch.no_grad():
            for p in net.parameters():
                if p.ndim:
                    p.add_(0.05 * torch.randn_like(p))
            if shape.source == "normflows":
                net(torch.zeros((2, *shape.event)))  # its power iterations take their first vectors from the first call
        return net
    finally:
        torch.set_rng_state(state)


def table() -> str:
    """Return the table of docs/modules.md."""
    rows = []
    for shape in MODULES:
        said = "taken" if shape.refused is None else "refused: " + REASONS[shape.name]
        rows.append(f"| {shape.source} | {shape.name} | {'×'.join(map(str, shape.event))} | {said} |")
    taken = sum(shape.refused is None for shape in MODULES)
    head = f"{len(MODULES)} shapes, {taken} taken, {len(MODULES) - taken} refused.\n\n| where from | shape | event | |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


REASONS = {
    "squeeze and excitation": "a product of two values that depend on the input",
    "max pooling": "no layer of the reference computes it",
    "strided on a large image": "its matrix, 6912 × 6912, is larger than 4096 × 4096",
    "LayerNorm": "divides by the spread of its input",
    "RMSNorm": "divides by the size of its input",
    "multi-head attention": "no Lipschitz constant on the whole space, and the batch does not stay first",
    "GroupNorm": "divides by the spread of its input",
    "InstanceNorm": "divides by the spread of its input",
    "BatchNorm without running statistics": "rows of a batch depend on each other",
    "gated linear unit": "a product of two values that depend on the input",
    "GLU": "a product of two values that depend on the input",
    "Softmax": "its Jacobian is neither shared nor diagonal",
    "Hardshrink, which jumps": "no Lipschitz constant",
    "Softplus(threshold=1), which jumps": "no Lipschitz constant",
    "PReLU for each channel": "an activation has one slope for all entries",
    "LSTM": "its state is made for the number of rows",
    "a forward that decides on its input": "what it does elsewhere is unknown",
    "noise at every call": "it draws random numbers",
    "statistics of the batch": "rows of a batch depend on each other",
    "nn.MLP, normalised": "divides by the spread of its input",
}
"""Why, in the words of the docs."""



def operations() -> str:
    """Return the table of the functions of torch that are read, and of those that are refused with a reason of their own."""
    from iresnet_backends.reading.torch_layers import REFUSED, RULES

    read: dict[str, list[str]] = {}
    for name, rule in RULES.items():
        read.setdefault((rule.__doc__ or "").strip().splitlines()[0], []).append(name)
    refused: dict[str, list[str]] = {}
    for name, reason in REFUSED.items():
        refused.setdefault(reason, []).append(name)
    rows = [f"| {', '.join(f'`{n}`' for n in names)} | {what.replace('|', chr(92) + '|')} |" for what, names in read.items()]
    rows += [f"| {', '.join(f'`{n}`' for n in names)} | refused: {why} |" for why, names in refused.items()]
    return "| functions and methods of torch, in place too | read as |\n|---|---|\n" + "\n".join(rows) + "\n"


def primitives() -> str:
    """Return the table of the primitives of JAX that are read."""
    from iresnet_backends.reading.jax_graph import READ

    return "| primitives of JAX | read as |\n|---|---|\n" + "".join(f"| {names} | {what} |\n" for names, what in READ.items())


def write(page: str, name: str, text: str) -> str:
    """Return the page with this text between the marks of a generated part."""
    before, mark, rest = page.partition(f"<!-- generated: {name} -->\n")
    return before + mark + text + "<!-- end -->" + rest.partition("<!-- end -->")[2]


if __name__ == "__main__":
    path = Path(__file__).parents[4] / "docs" / "modules.md"
    page = path.read_text("utf-8")
    for name, text in (("modules", table()), ("operations", operations()), ("primitives", primitives())):
        page = write(page, name, text)
    path.write_text(page, "utf-8")
