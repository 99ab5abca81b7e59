"""What a state_dict holds beside the weights: the structure, so that weights are never loaded into another network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from iresnet_backends.errors import FormatError
from iresnet_backends.saving import described
from iresnet_ref.arrays import to_host

Tensor = Any


class Parameters(torch.nn.Module):
    """Parameters under the names of the reference, "0.weight" as the weight of a part "0"."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        super().__init__()
        self.keys = tuple(arrays)
        for key, array in arrays.items():
            *path, name = key.split(".")
            part: torch.nn.Module = self
            for each in path:
                if each not in part._modules:
                    part.add_module(each, torch.nn.Module())
                part = part.get_submodule(each)
            part.register_parameter(name, torch.nn.Parameter(as_tensor(array)))

    def tensors(self) -> dict[str, Tensor]:
        """Return {name: tensor}: parameters, or what stands in their place (torch.func.functional_call, parametrisations)."""
        found = {}
        for key in self.keys:
            part: Any = self
            for each in key.split("."):
                part = getattr(part, each)
            found[key] = part
        return found


def as_tensor(array: Any) -> Tensor:
    """Return a copy as a tensor: of a tensor on its device, of any other array on the CPU, in its dtype."""
    if isinstance(array, torch.Tensor):
        return array.detach().clone()
    return torch.tensor(np.asarray(to_host(array)))


def structure(subject: Any) -> Tensor:
    """Return the structure as bytes, the form in which every format of checkpoints takes it."""
    text = json.dumps(described(subject), ensure_ascii=False)
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def require_structure(subject: Any, state: Tensor, name: str) -> None:
    """Refuse the state of another network. Raises FormatError naming what differs."""
    wanted, got = described(subject), json.loads(bytes(state.cpu().tolist()).decode())
    others = [k for k in dict.fromkeys((*wanted, *got)) if wanted.get(k) != got.get(k)]
    if others:
        told = "; ".join(f"{k or 'type'}: expected {wanted.get(k, 'nothing')}, got {got.get(k, 'nothing')}" for k in others[:5])
        raise FormatError(f"load_state_dict: expected the state of this {name}, got {len(others)} differences: {told}; build the one saved")
