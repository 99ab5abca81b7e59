"""normflows 1.7.3: the first block of a residual flow trained on digits (`Residual` over `LipschitzMLP`).

The claims are the package's own: LipschitzMLP's `lipschitz_const` is the "maximum Lipschitz constant of each layer";
`_logdetgrad` "returns g(x) and logdet|d(x+g(x))/dx|" by "unbiased estimation", in evaluation exactly for d = 2;
`_inverse_fixed_point(y, atol=1e-5, rtol=1e-5)` names its tolerances: |x̂ − x| ≤ atol + rtol·|y| on each entry, so
‖x̂ − x‖₂ ≤ 1e-5·(√d + ‖y‖₂); `inverse_tolerance` is the least that allows this on every row of the data. With
`reverse=True`, the default, x + g(x) is the method `inverse`.
"""

from __future__ import annotations

import torch
from _findings import declared
from _training import rows_of, trained_residual_flow

from iresnet_verify import Subject


def _block(d: int, blocks: int, seed: int) -> Subject:
    flow, data, bound, refresh = trained_residual_flow(d, blocks, seed)
    block = flow.flows[-1]
    x = torch.as_tensor(data)
    allowed = 1e-5 * (d**0.5 + (x + block.iresblock.nnet(x)).norm(dim=1)) / x.norm(dim=1).clamp(min=1)
    return Subject(
        name=f"normflows Residual block, d={d}", event_shape=(d,), forward=block.inverse, inverse=block.forward,
        residual=block.iresblock.nnet, lipschitz=bound, lipschitz_holds="after-refresh", refresh=refresh,
        log_det_is={"train": "unbiased", "eval": "exact" if d == 2 else "unbiased"},
        inverse_tolerance=allowed.max().item(), inputs=rows_of(data), module=block,
        expected_failures=declared(f"normflows Residual block, d={d}"),
    )


def block_2d(seed: int = 0) -> Subject:
    return _block(2, 1, seed)


def block_64d(seed: int = 0) -> Subject:
    return _block(64, 4, seed)
