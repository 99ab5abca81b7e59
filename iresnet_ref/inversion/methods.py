"""The methods of inversion as values; each has a name where no option is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iresnet_ref.arrays import public
from iresnet_ref.errors import DTypeError


class InverseMethod:
    """A method of `ir.invert`."""


@dataclass(frozen=True)
class Automatic(InverseMethod):
    """Iterate in the hidden space where that is narrow enough to pay; by chord steps with secants in few dimensions where J_g is nearly
    constant; else by Banach steps, and by Anderson's once ‖r‖ shrinks by less than half per step."""


@public
@dataclass(frozen=True)
class Banach(InverseMethod):
    """The plain iteration x ← y − g(x) ([B19] Algorithm 1).

    One evaluation of g a step; ‖r‖ shrinks by L or more. Best where L is small.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> bool(np.all(ir.invert(F, np.ones((3, 2)), ir.Banach(), rtol=1e-9).converged))
    True
    """


@public
@dataclass(frozen=True)
class Anderson(InverseMethod):
    """Safeguarded Anderson acceleration with `memory` secant pairs: by default the dimension up to 16, else 10.

    Few steps where the slowest directions are few. Raises: ValueError for memory < 1.
    Reference: Walker and Ni, *Anderson acceleration for fixed-point iterations*, SINUM 2011.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> bool(np.all(ir.invert(F, np.ones((3, 2)), ir.Anderson(memory=2), rtol=1e-9).converged))
    True
    """

    memory: int | None = None

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory < 1:
            raise ValueError(f"Anderson: expected memory ≥ 1, got {self.memory}; leave it out for what suits the dimension")


@public
@dataclass(frozen=True)
class Newton(InverseMethod):
    """The safeguarded Newton iteration: dense solves up to 16 dimensions, else GCR.

    Quadratic where g is smooth, a solve a step: best in few dimensions and near L = 1.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> bool(np.all(ir.invert(F, np.ones((3, 2)), ir.Newton(), rtol=1e-9).converged))
    True
    """


@public
@dataclass(frozen=True)
class Hidden(InverseMethod):
    """Iterate in the space of the first hidden layer, of a branch that begins and ends with dense layers.

    Cheaper where that space is narrower than x. `ir.invert` raises ValueError for other branches.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> bool(np.all(ir.invert(F, np.ones((3, 2)), ir.Hidden(), rtol=1e-9).converged))
    True
    """


Name = Literal["auto", "banach", "anderson", "newton", "hidden"]
BY_NAME: dict[str, InverseMethod] = {
    "auto": Automatic(), "banach": Banach(), "anderson": Anderson(), "newton": Newton(), "hidden": Hidden(),
}  # fmt: skip


def named(method: InverseMethod | Name) -> InverseMethod:
    """Return the method itself. Raises ValueError for an unknown name, DTypeError for another object.

    >>> named("newton"), named(Anderson(memory=5)).memory
    (Newton(), 5)
    """
    if isinstance(method, str):
        if method not in BY_NAME:
            raise ValueError(f"invert: expected method {', '.join(BY_NAME)}, got {method!r}; try 'auto'")
        return BY_NAME[method]
    if not isinstance(method, InverseMethod):
        raise DTypeError(f"invert: expected a name or ir.Banach, Anderson, Newton or Hidden, got {type(method).__name__}")
    return method
