"""GroupSort, MaxMin and FullSort: sort groups of channels (Anil, Lucas, Grosse, *Sorting Out Lipschitz Function
Approximation*, ICML 2019, arXiv 1811.05381).

The Jacobian is a permutation of each sample: ‖Jᵀu‖ = ‖u‖ in every norm, so that gradients keep their norm. Sorting is
1-Lipschitz in every p-norm: of all pairings of two lists the sorted one has the least Σ|aᵢ − bᵢ|^p. *Ties* keep the order of
the input (a stable sort, also when descending), so that the Jacobian there is one of its limits, the same on every backend.
"""

from __future__ import annotations

from dataclasses import dataclass

from iresnet_ref.arrays import Array, device, namespace, public, size
from iresnet_ref.errors import ShapeError
from iresnet_ref.jacobian.factors import Factor, Permutation
from iresnet_ref.layers.layer import Layer, Pullback, transposed


@public
@dataclass(frozen=True)
class GroupSort(Layer):
    """Sort each `group` of neighbouring channels, the largest first; channels are the first event axis, pixels are apart.

    GroupSort(2) is MaxMin; GroupSort(None) sorts all channels (FullSort). Reference: Anil, Lucas, Grosse 2019, arXiv 1811.05381.

    >>> import numpy as np
    >>> GroupSort(2)(np.asarray([[1.0, 2.0, 5.0, 3.0]])).tolist(), GroupSort(None)(np.asarray([[1.0, 2.0, 5.0, 3.0]])).tolist()
    ([[2.0, 1.0, 5.0, 3.0]], [[5.0, 3.0, 2.0, 1.0]])
    """

    group: int | None = 2
    descending: bool = True

    @property
    def name(self) -> str:
        """What messages call it."""
        return "fullsort" if self.group is None else "maxmin" if self.group == 2 else f"groupsort {self.group}"

    def out_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the same shape; the channels must fill the groups."""
        self._group_of(event[0])
        return event

    def __call__(self, x: Array) -> Array:
        """Return the sorted x."""
        return self._order(x).apply(x)

    def linearize(self, x: Array) -> tuple[Array, Permutation]:
        """Return the sorted x and the permutation that sorts it."""
        order = self._order(x)
        return order.apply(x), order

    def pullback(self, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """x̄ = Pᵀȳ, v̄ = Pᵀt̄."""
        return GroupSort.pullback_at(self, self._order(x), x, v, y_bar, t_bar)

    def pullback_at(self, factor: Factor, x: Array, v: Array | None, y_bar: Array | None, t_bar: Array | None) -> Pullback:
        """Return `pullback` without sorting again."""
        return *transposed(factor, y_bar, t_bar), {}

    def norm_bound(self, p: float = 2.0) -> float:
        """Return 1, whatever p."""
        return 1.0

    def groups(self, x: Array) -> Array:
        """Return x as (batch, groups, group, pixels)."""
        group = self._group_of(x.shape[1])
        return namespace(x).reshape(x, (x.shape[0], x.shape[1] // group, group, size(tuple(x.shape[2:]))))

    def _group_of(self, channels: int) -> int:
        """Return how many of so many channels are in each group."""
        group = channels if self.group is None else self.group
        if group < 1 or channels % group:
            raise ShapeError(f"{self.name}: expected channels in groups of {group}, got {channels}; try a multiple of {group}")
        return group

    def _order(self, x: Array) -> Permutation:
        xp = namespace(x)
        groups = self.groups(x)
        batch, count, group, pixels = groups.shape
        if group == 2:
            first, second = groups[:, :, 0, :], groups[:, :, 1, :]
            swap = xp.astype(first < second if self.descending else first > second, xp.int32)
            place = xp.stack([swap, 1 - swap], axis=2)
        else:
            place = xp.argsort(groups, axis=2, descending=self.descending, stable=True)

        def along(n: int, axis: int) -> Array:
            shape = tuple(n if i == axis else 1 for i in range(4))
            return xp.reshape(xp.arange(n, dtype=place.dtype, device=device(x)), shape)

        index = (along(count, 1) * group + place) * pixels + along(pixels, 3)
        return Permutation(xp.reshape(index, (batch, count * group * pixels)), tuple(x.shape[1:]))
