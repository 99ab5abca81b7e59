"""Single layers of other packages: a Sylvester flow of pyro-ppl 1.9.2, layers of deel-torchlip 1.0.5, a convolution of normflows 1.7.3.

pyro: "log_abs_det_jacobian(x, y)". torchlip: "k_coef_lip: Lipschitz constant to ensure", in every padding mode that its
documentation lists; the audit sees the layer as the branch of x + g(x), k_coef_lip = 0.9. `Sequential` claims as much of a whole module,
"the Lipschitz coefficient to ensure globally on the model". normflows: "Convolutional neural
network which is Lipschitz continuous with Lipschitz constant L < 1", lipschitz_const = 0.97 for each of one layer.
"""

from __future__ import annotations

import normflows as nf
import pyro.distributions.transforms as pyro
import torch
from _findings import declared
from _training import seeded
from deel.torchlip import Sequential, SpectralConv2d, SpectralLinear

from iresnet_verify import Subject, adapters


def pyro_sylvester() -> Subject:
    name = "pyro Sylvester"
    net = seeded(lambda: pyro.Sylvester(4, count_transforms=2), noise=0.5)

    def forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = net(x)
        return y, net.log_abs_det_jacobian(x, y)

    return Subject(name=name, event_shape=(4,), forward=forward, module=net, expected_failures=declared(name))


def _branch(padding_mode: str) -> Subject:
    name = f"torchlip SpectralConv2d, padding_mode={padding_mode!r}"
    layer = seeded(lambda: SpectralConv2d(1, 1, 3, padding=1, padding_mode=padding_mode, bias=False, k_coef_lip=0.9))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        layer.parametrizations.weight.original.fill_(1.0)
        for _ in range(30):  # its power iteration and Björck's have converged
            layer.train()(torch.zeros(1, 1, 5, 5, dtype=torch.float64))
    return Subject(name=name, event_shape=(1, 5, 5), forward=lambda x: x + layer(x), residual=layer, lipschitz=0.9,
                   module=layer, modes=("eval",), expected_failures=declared(name))


def torchlip_reflect() -> Subject:
    return _branch("reflect")


def torchlip_zeros() -> Subject:
    return _branch("zeros")


def torchlip_sequential() -> Subject:
    name = "torchlip Sequential, k_coef_lip=0.5"
    net = seeded(lambda: Sequential(SpectralLinear(3, 3), SpectralLinear(3, 3), k_coef_lip=0.5))
    return adapters.certifier(lambda _: 0.5, net, (3,), name=name, expected_failures=declared(name))


def normflows_other_grid() -> Subject:
    name = "normflows LipschitzCNN on a larger grid"
    net = seeded(lambda: nf.nets.LipschitzCNN([1, 1], [3], init_zeros=False))
    convolution = next(m for m in net.modules() if type(m).__name__ == "InducedNormConv2d")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolution.weight.fill_(1.0)
        net(torch.randn(1, 1, 3, 3, dtype=torch.float64))
        nf.utils.update_lipschitz(net, 200)
    return Subject(name=name, event_shape=(1, 7, 7), forward=lambda x: x + net(x), residual=net, lipschitz=0.97, module=net,
                   modes=("eval",), inputs=lambda n, rng: 20 + rng.standard_normal((n, 1, 7, 7)), expected_failures=declared(name))
