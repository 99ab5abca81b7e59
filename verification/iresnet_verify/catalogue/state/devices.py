"""Moving a network to another device: everything it needs goes along."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from iresnet_verify.catalogue.shared.comparisons import warm_up
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.subject.fresh import build_fresh
from iresnet_verify.subject.module_state import is_torch_module, set_mode

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context

MIXED = re.compile(r"same device|expected device|is on (cpu|meta)|device (cpu|meta)", re.IGNORECASE)
"""How torch says that two devices meet in one operation."""


@check(
    "state.moves-device",
    claim="module.to(device) moves all that forward needs: no tensor that it reads stays behind.",
    reference="torch.nn.Module.to moves parameters and buffers; other attributes stay where they are", kind="search",
    needs=("torch", "module", "fresh"), modes=False, cost="one call",
    catches="tensors kept as plain attributes, constants made on the CPU, caches of another device",
)
def moves_device(ctx: Context) -> Outcome:
    """A newly built network, used once, is moved to torch's `meta` device, which has shapes and no numbers, and called there.

    Operations in which tensors of both devices meet are seen as they are dispatched: the meta device itself lets some by.
    """
    import torch

    made = build_fresh(ctx.subject)
    if not is_torch_module(made.module):
        return Outcome("skipped", "needs a torch.nn.Module as module")
    warm_up(ctx)
    x = ctx.inputs(3)
    set_mode(made.module, "eval")
    with ctx.framework.call_context():  # with autograd on, which forward may need
        made.forward(ctx.native(x))  # what it caches on its way must be able to move too
    kept = {f"{type(part).__name__}.{name}" for part in made.module.modules() for name, value in vars(part).items()
            if isinstance(value, torch.Tensor)}
    made.module.to("meta")
    evidence = {"tensors_outside_buffers": ", ".join(sorted(kept)) or "none", "from": ctx.subject.device, "to": "meta"}
    met: list[str] = []
    trouble, out = "", None
    try:
        with ctx.framework.call_context(), _watching(met):
            out = made.forward(ctx.native(x).to("meta"))
    except Exception as error:
        trouble = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    while isinstance(out, tuple | list):
        out = out[0]
    if met or MIXED.search(trouble) or (out is not None and out.device.type != "meta"):
        what = f"{met[0]} of tensors on two devices" if met else trouble or f"y on {getattr(out, 'device', None)}"
        return Outcome(
            "failed", f"expected a network moved by .to(device) to run there, got {what}; register tensors as buffers, and make "
            f"constants with device=x.device (plain tensor attributes: {evidence['tensors_outside_buffers']})", evidence, "existence",
            "torch's meta device", Counterexample({"x": x}))
    if trouble:
        return Outcome("skipped", f"forward looks at numbers, which meta tensors have not: {trouble}", evidence)
    return Outcome("passed", "moved as a whole: called on another device it finds everything there", evidence, "existence",
                   "torch's meta device")


def _watching(met: list[str]) -> Any:
    """A context in which every operation on tensors of two devices, one of them meta, is noted; 0-d tensors may mix."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not annotate it
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            places = {t.device.type for t in tree_leaves((args, kwargs)) if hasattr(t, "device") and getattr(t, "ndim", 0) > 0}
            if len(places) > 1 and "meta" in places and "copy" not in str(func):
                met.append(str(func).removeprefix("aten."))
            return func(*args, **(kwargs or {}))

    return Watch()  # type: ignore[no-untyped-call]  # torch does not annotate it
