"""LipSwish and CLipSwish of every scale and activation: no slope exceeds the norm that is proved of the layer."""

from __future__ import annotations

import math

import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_ref.layers.lipswish import CLipSwish, LipSwish
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.layers.swish import CLIPSWISH

RAW = np.ones(1)
LAYERS = {
    "lipswish": LipSwish(RAW),
    "lipswish, scale 1": LipSwish(RAW, 1.0),
    "clipswish": CLipSwish(),
    "clipswish of learnt slopes": CLipSwish(LipSwish(RAW, CLIPSWISH)),
    "clipswish of a scale too small": CLipSwish(LipSwish(RAW)),
    "clipswish of lipswish": CLipSwish(Pointwise(ir.activations.get("lipswish"))),
    "clipswish of tanh": CLipSwish(Pointwise(ir.activations.get("tanh"))),
}


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_no_slope_exceeds_the_norm_of_the_layer(name: str, p: float) -> None:
    layer, z = LAYERS[name], np.linspace(-9.0, 9.0, 20001)[:, None]
    entries = np.asarray(layer.linearize(z)[1].entries)
    assert np.linalg.norm(entries, p, axis=1).max() <= layer.norm_bound(p) * (1.0 + 1e-14)  # the slopes are rounded
