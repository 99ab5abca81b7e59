"""normflows 1.7.3: RealNVP, affine couplings with swaps between them. A positive control: nothing is wrong here.

The scales are sigmoids: the default, exponentials of an unbounded network, overflows for inputs a few times normal.
"""

from __future__ import annotations

import normflows as nf
from _training import seeded

from iresnet_verify import Subject


def subject() -> Subject:
    def build() -> nf.NormalizingFlow:
        flows: list[nf.flows.Flow] = []
        for _ in range(4):
            coupling = nf.flows.AffineCouplingBlock(nf.nets.MLP([3, 32, 32, 6]), scale_map="sigmoid")
            flows += [coupling, nf.flows.Permute(6, mode="swap")]
        return nf.NormalizingFlow(nf.distributions.DiagGaussian(6, trainable=False), flows)

    flow = seeded(build, noise=0.1)
    return Subject(
        name="normflows RealNVP, d=6", event_shape=(6,),
        forward=lambda x: _through(x, [f.inverse for f in reversed(flow.flows)]),
        inverse=lambda z: _through(z, flow.flows), log_prob=flow.log_prob, sample=lambda n: flow.sample(n)[0],
        base_log_prob=flow.q0.log_prob, module=flow,
    )


def _through(x, layers):
    total = 0.0
    for layer in layers:
        x, log_det = layer(x)
        total = total + log_det
    return x, total
