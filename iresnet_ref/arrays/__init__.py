"""Arrays of any backend: their namespace and device, the way to the host and back, norms of events, and validation."""

from iresnet_ref.arrays.caching import lazy, outside_the_graph
from iresnet_ref.arrays.namespaces import (
    Array,
    HostArray,
    all_finite,
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
from iresnet_ref.arrays.norms import expand_rows, flatten_events, host_norms, row_norm, stack_norm
from iresnet_ref.arrays.validation import (
    require_alike,
    require_batch,
    require_finite,
    require_full_precision,
    require_real,
)

__all__ = [
    "Array",
    "HostArray",
    "all_finite",
    "device",
    "expand_rows",
    "family",
    "flatten_events",
    "from_host",
    "holds",
    "host_norms",
    "indices",
    "is_compiling",
    "is_short",
    "lazy",
    "namespace",
    "outside_the_graph",
    "product",
    "require_alike",
    "require_batch",
    "require_finite",
    "require_full_precision",
    "require_real",
    "row_norm",
    "size",
    "stack_norm",
    "to_host",
    "widen",
]
