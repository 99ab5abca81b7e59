"""normflows 1.7.3: a whole residual flow trained on digits, with its density and its samples.

`inverse_and_log_det` maps data to the base. Claims as in normflows_residual.py; the errors τ of the four inverses add up
to τ·Σ (1−L)^(−i), i < 4, at most. `log_prob` promises the "log probability of the data", here of float64.
"""

from __future__ import annotations

from _findings import FLOW, declared
from _training import rows_of, trained_residual_flow

from iresnet_verify import Subject

BLOCKS = 4


def subject(seed: int = 0) -> Subject:
    flow, data, bound, refresh = trained_residual_flow(2, BLOCKS, seed)
    return Subject(
        name=FLOW, event_shape=(2,),
        forward=flow.inverse_and_log_det, inverse=flow.forward_and_log_det,
        log_det_is={"train": "unbiased", "eval": "exact"}, refresh=refresh, inputs=rows_of(data),
        inverse_tolerance=sum(1e-5 * (2**0.5 + 2 + bound) * (1 - bound) ** -i for i in range(BLOCKS)),
        log_prob=flow.log_prob, sample=lambda n: flow.sample(n)[0], base_log_prob=flow.q0.log_prob,
        module=flow, expected_failures=declared(FLOW),
    )
