"""Modules of the shapes that published packages have: taken and equal to rounding, or refused with place and reason; none wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from places import ROOT  # noqa: E402
from published_modules import MODULES, Shape, operations, primitives, seeded, table  # noqa: E402

import iresnet_ref as ir  # noqa: E402
from iresnet_backends import ModuleError, from_torch  # noqa: E402

DOCS = ROOT / "docs" / "modules.md"
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is deprecated in favor of:FutureWarning", "ignore:Using padding='same':UserWarning"
)


@pytest.mark.parametrize("shape", MODULES, ids=lambda s: f"{s.source}: {s.name}")
def test_taken_and_equal_to_rounding_or_refused(shape: Shape) -> None:
    if not shape.installed:
        pytest.skip(f"{shape.package} is not installed")
    net = seeded(shape)
    if shape.refused is not None:
        with pytest.raises(ModuleError, match=shape.refused):
            from_torch(net, event_shape=shape.event)
        return
    g = from_torch(net, event_shape=shape.event)
    certificate = ir.certify(g)
    x = 2.0 * torch.randn((6, *shape.event), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        ours, rounding, *_ = g.running_error(x)
        off = (ours - net(x)).flatten(1).norm(dim=1)
    # Each side is within its running error of the exact value; measured 1e-7 and less of values of size 1.
    assert bool((off <= 2.0 * rounding).all())
    assert float(off.max()) <= 2e-5 * (1.0 + float(ours.abs().max()))
    # ‖net(x) − net(x′)‖ ≤ L‖x − x′‖, and the rounding of the two values
    with torch.no_grad():
        change = (net(x[:3]) - net(x[3:])).flatten(1).norm(dim=1) - rounding[:3] - rounding[3:]
    assert certificate.proved
    assert bool((change <= certificate.bound * (x[:3] - x[3:]).flatten(1).norm(dim=1) * (1.0 + 1e-5)).all())


def test_no_module_is_listed_twice() -> None:
    assert len({(shape.source, shape.name) for shape in MODULES}) == len(MODULES)


@pytest.mark.parametrize("generated", [table, operations, primitives])
def test_the_docs_list_them(generated: Callable[[], str]) -> None:
    if generated is primitives:
        pytest.importorskip("jax")
    assert generated() in DOCS.read_text("utf-8"), "write it anew: python verification/tests/support/subjects/published_modules.py"
