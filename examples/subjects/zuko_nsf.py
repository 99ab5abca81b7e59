"""zuko 1.6: a neural spline flow. A positive control: nothing is wrong here."""

from __future__ import annotations

import torch
import zuko
from _training import seeded

from iresnet_verify import Subject


def subject() -> Subject:
    flow = seeded(lambda: zuko.flows.NSF(features=4, transforms=2, hidden_features=(32, 32)), noise=0.1)
    # flow() makes the transformation from the parameters as they are now, so it is called anew each time.
    def forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return flow().transform.call_and_ladj(x)

    def inverse(z: torch.Tensor) -> torch.Tensor:
        return flow().transform.inv(z)

    return Subject(
        name="zuko NSF, d=4", event_shape=(4,),
        forward=forward, inverse=inverse, module=flow,
        log_prob=lambda x: flow().log_prob(x), sample=lambda n: flow().sample((n,)),
        base_log_prob=flow().base.log_prob,
    )
