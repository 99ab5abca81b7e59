"""The invertible residual block over a Lipschitz DenseNet that enflows and flowcon share.

`iResBlock`: "Returns g(x) and logdet|d(x+g(x))/dx|", "unbiased_estimator: If true, uses an unbiased estimator for the logdet";
in evaluation the determinant is computed exactly. `DenseNet`: "Lipschitz contiuous network g(x) with a fixed lipschitz
constant", lip_coeff = 0.98 a layer. `_inverse_fixed_point` names atol = rtol = 1e-5.
"""

from __future__ import annotations

from typing import Any

import torch
from _findings import declared
from _training import seeded

from iresnet_verify import Subject, adapters


def block(name: str, i_res_block: Any, dense_net: Any, d: int = 3, depth: int = 2, noise: float = 0.3, **options: Any) -> Subject:
    net = seeded(lambda: i_res_block(dense_net(dimension=d, densenet_depth=depth, n_lipschitz_iters=50, **options)), noise=noise)
    with torch.no_grad():
        net.train().nnet(torch.zeros(1, d, dtype=torch.float64))  # power iteration sees the noise in a training pass only
    L = 0.98 ** (depth + 1)
    return adapters.pair(
        net, (d,), name=name, residual=net.nnet, lipschitz=L, log_det_is={"train": "unbiased", "eval": "exact"},
        inverse_tolerance=1e-5 * (d**0.5 + 2 + L), expected_failures=declared(name),
    )
