"""torchflows 1.2.1: planar, radial and Sylvester layers. They document that they go one way, `inverse`.

Promised is "the associated log Jacobian determinant".
"""

from __future__ import annotations

from typing import Any

from _findings import declared
from _training import seeded
from torchflows.bijections.finite.residual.planar import Planar
from torchflows.bijections.finite.residual.radial import Radial
from torchflows.bijections.finite.residual.sylvester import Sylvester

from iresnet_verify import Subject


def _one_way(name: str, net: Any, d: int) -> Subject:
    name = f"torchflows {name}"
    return Subject(name=name, event_shape=(d,), forward=net.inverse, module=net, expected_failures=declared(name))


def radial() -> Subject:
    return _one_way("Radial", seeded(lambda: Radial((3,)), noise=0.1), 3)


def planar() -> Subject:
    return _one_way("Planar", seeded(lambda: Planar((3,)), noise=0.1), 3)


def sylvester() -> Subject:
    return _one_way("Sylvester", seeded(lambda: Sylvester((4,)), noise=0.1), 4)
