"""Arrays of any backend: their namespace and device, the way to the host and back, norms of events; `validation` is beside it."""

from iresnet_ref.arrays.boundary import changed, public, shown, whole_number
from iresnet_ref.arrays.caching import lazy, outside_the_graph
from iresnet_ref.arrays.namespaces import (
    all_finite,
    contiguous,
    device,
    family,
    from_host,
    holds,
    indices,
    is_compiling,
    is_short,
    namespace,
    product,
    size,
    to_host,
    widen,
)
from iresnet_ref.arrays.norms import every_row, expand_rows, flatten_events, host_norms, row_dot, row_norm, stack_norm
from iresnet_ref.arrays.packing import Packed, Packing
from iresnet_ref.arrays.types import Array, Device, DType, HostArray, Namespace, RowIndex

__all__ = [
    "Array", "DType", "Device", "HostArray", "Namespace", "Packed", "Packing", "RowIndex", "all_finite", "changed", "contiguous",
    "device", "every_row", "expand_rows", "family", "flatten_events", "from_host", "holds", "host_norms", "indices",
    "is_compiling", "is_short", "lazy", "namespace", "outside_the_graph", "product", "public", "row_dot", "row_norm", "shown",
    "size", "stack_norm", "to_host", "whole_number", "widen",
]
