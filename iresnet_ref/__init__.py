"""The mathematics of invertible residual networks, F(x) = x + g(x) with Lip(g) < 1, on any Array API backend.

Start with a block; `like=` an array of any backend gives the weights its dtype and device:

>>> import numpy as np, iresnet_ref as ir
>>> F = ir.ResidualBlock(ir.mlp((2, 64, 64, 2), lipschitz=0.9, like=np.zeros(1)))
>>> x = np.ones((3, 2))
>>> back = ir.invert(F, F(x), rtol=1e-12)           # back.x is within back.error_bound of x
>>> log_det = ir.logdet(F, x)                       # value, standard_error, bias_bound; nats
>>> flow = ir.Flow([F, ir.ResidualBlock(ir.mlp((2, 64, 64, 2), seed=1))])
>>> log_p = flow.log_prob(x)                        # and flow.sample(10), flow.inverse(z)

Flat: what builds blocks, what is calculated of them, the results, and the errors to catch. The rest, by subject:

    ir.layers        what a branch is made of            ir.activations   φ, with constants and derivatives
    ir.bijections    what else a flow is made of         ir.densities     Gaussians at its end
    ir.roulette      distributions of the series length  ir.bounds        proved bounds, balls, floors
    ir.spectral      norms and normalisation             ir.training      losses with gradients, AdamW, the loop

[B19] Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen, *Invertible Residual Networks*, ICML 2019, arXiv 1811.00995.
[C19] Chen, Behrmann, Duvenaud, Jacobsen, *Residual Flows for Invertible Generative Modeling*, NeurIPS 2019, arXiv 1906.02735.
"""

import importlib as _importlib
import types as _types
import typing as _typing

from iresnet_ref.block import ResidualBlock as ResidualBlock
from iresnet_ref.block import certify as certify
from iresnet_ref.branches.branch import Branch as Branch
from iresnet_ref.branches.certificate import Certificate as Certificate
from iresnet_ref.branches.convolutional import convnet as convnet
from iresnet_ref.branches.dense import mlp as mlp
from iresnet_ref.branches.densely_connected import densenet as densenet
from iresnet_ref.branches.normalised import NormalisedBranch as NormalisedBranch
from iresnet_ref.branches.sandwich import SandwichBranch as SandwichBranch
from iresnet_ref.branches.sandwich import sandwich as sandwich
from iresnet_ref.errors import ConvergenceError as ConvergenceError
from iresnet_ref.errors import DTypeError as DTypeError
from iresnet_ref.errors import HostArithmeticError as HostArithmeticError
from iresnet_ref.errors import InfiniteVarianceError as InfiniteVarianceError
from iresnet_ref.errors import IResNetError as IResNetError
from iresnet_ref.errors import NonFiniteError as NonFiniteError
from iresnet_ref.errors import NotContractiveError as NotContractiveError
from iresnet_ref.errors import ShapeError as ShapeError
from iresnet_ref.flows.base import LogProb as LogProb
from iresnet_ref.flows.bijections.protocol import Options as Options
from iresnet_ref.flows.flow import Flow as Flow
from iresnet_ref.flows.maps import invert as invert
from iresnet_ref.flows.maps import logdet as logdet
from iresnet_ref.gradient.backward_in_forward import StoredGradient as StoredGradient
from iresnet_ref.gradient.backward_in_forward import backward_in_forward as backward_in_forward
from iresnet_ref.gradient.inverse import inverse_gradient as inverse_gradient
from iresnet_ref.gradient.log_determinant import logdet_gradient as logdet_gradient
from iresnet_ref.gradient.result import InverseGradient as InverseGradient
from iresnet_ref.gradient.result import LogDetGradient as LogDetGradient
from iresnet_ref.gradient.result import SequenceGradient as SequenceGradient
from iresnet_ref.gradient.sequence import sequence_gradient as sequence_gradient
from iresnet_ref.inversion.composition import PathInverse as PathInverse
from iresnet_ref.inversion.methods import Anderson as Anderson
from iresnet_ref.inversion.methods import Banach as Banach
from iresnet_ref.inversion.methods import Hidden as Hidden
from iresnet_ref.inversion.methods import Newton as Newton
from iresnet_ref.inversion.result import Inverse as Inverse
from iresnet_ref.log_determinant.inverse import InverseLogDet as InverseLogDet
from iresnet_ref.log_determinant.inverse import logdet_of_inverse as logdet_of_inverse
from iresnet_ref.log_determinant.methods import Arnoldi as Arnoldi
from iresnet_ref.log_determinant.methods import Auto as Auto
from iresnet_ref.log_determinant.methods import Exact as Exact
from iresnet_ref.log_determinant.methods import Roulette as Roulette
from iresnet_ref.log_determinant.methods import Series as Series
from iresnet_ref.log_determinant.result import LogDet as LogDet
from iresnet_ref.probes import Probes as Probes

if _typing.TYPE_CHECKING:
    __version__: str
    from iresnet_ref import activations as activations
    from iresnet_ref import bijections as bijections
    from iresnet_ref import bounds as bounds
    from iresnet_ref import densities as densities
    from iresnet_ref import layers as layers
    from iresnet_ref import roulette as roulette
    from iresnet_ref import spectral as spectral
    from iresnet_ref import training as training
else:
    _FACES = ("activations", "bijections", "bounds", "densities", "layers", "roulette", "spectral", "training")

    def __getattr__(name: str) -> _types.ModuleType | str:
        """Return a module of further names, imported when it is first asked for; or the version of what is installed."""
        if name in _FACES:
            return _importlib.import_module(f"{__name__}.{name}")
        if name == "__version__":
            return _importlib.import_module("importlib.metadata").version("iresnet-ref")
        msg = f"module {__name__!r} has no attribute {name!r}; of the names that are not flat, ir.{' ir.'.join(_FACES)}"
        raise AttributeError(msg)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_FACES})
