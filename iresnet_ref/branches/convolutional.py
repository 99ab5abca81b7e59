"""The convolutional layer h ↦ K ∗ h + b, and branches made of it: 3×3–1×1–3×3 as in [B19], or any odd kernels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from iresnet_ref.arrays import Array, public
from iresnet_ref.branches.branch import Branch
from iresnet_ref.branches.draws import array_like, drawn
from iresnet_ref.errors import ShapeError
from iresnet_ref.jacobian.convolution import require_convolution
from iresnet_ref.layers import Conv, Layer
from iresnet_ref.layers.activations import Activation
from iresnet_ref.layers.by_name import nonlinearity, widening
from iresnet_ref.normalisation.division import normalise
from iresnet_ref.normalisation.shares import lipschitz_shares


@public
def convnet(
    event_shape: Sequence[int],
    *,
    channels: int | Sequence[int] = 16,
    kernels: Sequence[int | tuple[int, int]] = (3, 1, 3),
    activation: str | Activation | Layer = "lipswish",
    padding: str = "zero",
    stride: int = 1,
    lipschitz: float = 0.9,
    seed: int = 0,
    like: Array | None = None,
) -> Branch:
    """Return g(x) = K_ℓ ∗ φ(⋯ φ(K₁ ∗ x + b₁) ⋯) + b_ℓ on images, with proved Lip(g) ≤ `lipschitz` < 1.

    Each of the ℓ kernels is drawn N(0, 1/fan-in), and divided so that the norm of its *operator on this image* is proved at
    most `lipschitz`^(1/ℓ); biases are N(0, 1/fan-in). Draws depend on the seed alone: the same network on every backend.

    Shapes: `event_shape` = (channels, height, width); `kernels` one odd side or pair of sides for each layer; `channels`
    the hidden ones, a number or one for each hidden layer; `padding` "zero" or "circular". `like` gives namespace, dtype
    and device (default: NumPy float64).
    Limits: the certificate holds for this image size only. For zero padding on larger images it is the circular bound,
    above the norm by up to 1 % for Gaussian 3×3 kernels at 16×16, by more for smooth ones: then Lip(g) is that much smaller.
    Raises: ShapeError for even kernels, kernels larger than the image, `stride` other than 1, wrong channel counts;
    NotContractiveError; ValueError for an unknown activation or padding. Reference: [B19] §2.1 and §5.

    >>> import numpy as np
    >>> g = convnet((3, 8, 8), channels=4, activation="elu", padding="circular")
    >>> g(np.zeros((5, 3, 8, 8))).shape
    (5, 3, 8, 8)
    """
    event = tuple(event_shape)
    if len(event) != 3 or min(event) < 1:
        raise ShapeError(f"convnet: expected an event shape (channels, height, width), got {event}; try (3, 16, 16)")
    count = len(kernels)
    hidden = (channels,) * (count - 1) if isinstance(channels, int) else tuple(channels)
    if count < 1 or len(hidden) != count - 1 or min(hidden, default=1) < 1:
        raise ShapeError(
            f"convnet: expected kernels and one positive number of channels between each two of them, got {count} kernels "
            f"and channels {hidden}; try channels=16, kernels=(3, 1, 3)"
        )
    like = array_like(like)
    phi = nonlinearity(activation, like)
    image = (event[1], event[2])
    share = lipschitz_shares(lipschitz / max(1.0, phi.norm_bound()) ** (count - 1), count)
    layers: list[Layer] = []
    for i, (width, m) in enumerate(pairwise((event[0], *hidden, event[0]))):
        n = width * widening(phi) if i else width
        side = kernels[i]
        shape = (m, n, *(side if isinstance(side, tuple) else (side, side)))
        mode = require_convolution(shape, image, padding, stride)
        layers += [phi] * bool(i)
        layers.append(normalise(Conv(*drawn(shape, like, seed, i), image, mode), share))
    return Branch(tuple(layers), event)
