"""What the audit found in released packages: the table behind docs/gallery.md and behind every declared failure.

A finding names the promise that is broken (docstring, type, name or mathematics), the checks that fail on it, the subjects they
fail in, and a file in `examples/findings` that shows it again without this library. Declarations are strict: one that
passes fails the gallery.
"""

from __future__ import annotations

from dataclasses import dataclass

BLOCKS = ("normflows Residual block, d=2", "normflows Residual block, d=64")
FLOW = "normflows residual flow, d=2"
INVERSE = ("inverse.keeps-tolerance", "inverse.recovers-input", "inverse.recovers-output", "convergence.is-reported",
           "convergence.worst-input")
NORM = ("lipschitz.bounds-jacobian", "lipschitz.bounds-pairs", "lipschitz.bounds-stretch")
VOLUME = ("logdet.matches-determinant", "logdet.adds-up", "logdet.worst-input", "gradient.log-det", "gradient.log-det-input")


@dataclass(frozen=True)
class Finding:
    """One defect of a released package."""

    package: str
    subjects: tuple[str, ...]
    """Names of the audited subjects whose audits fail the checks below."""
    promise: str
    found: str
    checks: tuple[str, ...]
    """Empty where no audit has failed on it yet: it was found by reading, and is confirmed by its reproduction alone."""
    reproduction: str
    """File of examples/findings, without .py."""


FINDINGS = (
    Finding("normflows 1.7.3", BLOCKS, "`_inverse_fixed_point` names atol = rtol = 1e-5",
            "it stops when the square of its step is below them, silently: errors over 100 times as large",
            (*INVERSE, "inverse.odd-inputs", "inverse.rows-are-independent"), "normflows_inverse_tolerance"),
    Finding("normflows 1.7.3", (*BLOCKS, FLOW), "`_logdetgrad`: logdet|d(x+g(x))/dx|, by \"unbiased estimation\"",
            "in training it returns an estimate of tr(J(I+J)⁻¹), biased as log-det",
            ("logdet.matches-determinant", "logdet.of-the-inverse", "estimator.unbiased", "estimator.coefficients",
             "density.change-of-variables"),
            "normflows_training_log_det"),
    Finding("normflows 1.7.3", (*BLOCKS, FLOW), "mathematics: the chain rule",
            "in training all rows of the log-det's gradient are multiplied by the upstream gradient of row 0",
            ("gradient.log-det", "gradient.log-det-input"), "normflows_row_weights"),
    Finding("normflows 1.7.3", (*BLOCKS, FLOW), "type: nn.Module",
            "in training, a frozen parameter of the branch makes the forward pass raise", ("gradient.frozen-parameters",),
            "normflows_frozen_parameters"),
    Finding("normflows 1.7.3", (*BLOCKS, FLOW), "torch.autograd: retain_graph=True",
            "in training the backward pass multiplies in place what it saved; a second one raises", ("gradient.repeated-backward",),
            "normflows_repeated_backward"),
    Finding("normflows 1.7.3", (*BLOCKS, FLOW), "name: inverse(z) is a map",
            "in evaluation it sets requires_grad on the tensor of its caller", ("hygiene.caller-tensors-kept",),
            "normflows_caller_tensor"),
    Finding("normflows 1.7.3", (FLOW,), "`NormalizingFlow`: log determinant of the Jacobian, of a float64 flow",
            "log-dets are summed in float32 whatever the flow's dtype",
            ("logdet.matches-determinant", "logdet.adds-up", "logdet.worst-input"), "normflows_float32_sum"),
    Finding("normflows 1.7.3", ("normflows Glow",), "name: a block for 4 channels",
            "GlowBlock maps 3 channels to 4 without an error", ("hygiene.wrong-event-shape",), "normflows_glow_channels"),
    Finding("normflows 1.7.3", ("normflows LipschitzCNN on a larger grid",), "\"Lipschitz constant L < 1\", lipschitz_const = 0.97",
            "normalised for the image size of the first call: not contractive on a larger one",
            (*NORM, "convergence.banach-rate"), "normflows_other_grid"),
    Finding("torchflows 1.2.1", ("torchflows InvertibleResNetBlock, its own branch",),
            "`c` = 0.7; i-ResNet and ResFlow need Lip(g) < 1",
            "SpectralMatrix ignores `c`, and five power iterations leave norms above 1", ("lipschitz.layers",),
            "torchflows_spectral_norm"),
    Finding("torchflows 1.2.1", ("torchflows InvertibleResNetBlock, its own branch",), "name: a bijection is a map",
            "the forward pass is random in evaluation too: its power iteration starts anew in every call",
            ("hygiene.forward-not-random",), "torchflows_random_forward"),
    Finding("torchflows 1.2.1", ("torchflows ResFlowBlock, a given branch",),
            "`Bijection.inverse`: \"log Jacobian determinant of the inverse transform\"",
            "the log-det of the forward direction is returned, with its sign", ("logdet.of-the-inverse",),
            "torchflows_inverse_log_det_sign"),
    Finding("torchflows 1.2.1", ("torchflows ResFlowBlock, a given branch",), "`roulette_log_abs_det_estimator`: estimate log|det|",
            "weights 1/k where the series has 1/(k+1)",
            ("estimator.unbiased", "logdet.matches-determinant"), "torchflows_roulette_weights"),
    Finding("torchflows 1.2.1", (), "n_hutchinson_samples: the log-det at x",
            "with more than one probe InvertibleResNetBlock evaluates the series at points that are no rows of the batch",
            (), "torchflows_hutchinson_rows"),
    Finding("torchflows 1.2.1", ("torchflows InvertibleResNetBlock, its own branch", "torchflows ResFlowBlock, a given branch"),
            "torch: requires_grad belongs to the caller",
            "the backward pass of ResFlowBlock and InvertibleResNetBlock switches it on for frozen parameters",
            ("gradient.frozen-parameters",), "torchflows_frozen_parameters"),
    Finding("torchflows 1.2.1", ("torchflows ProximalResFlowBlock",), "name: inverse",
            "forward divides by 1 + γ − γt, inverse inverts the undivided map",
            (*INVERSE, "inverse.odd-inputs", "logdet.of-the-inverse", "logdet.one-value", "gradient.through-inverse"),
            "torchflows_proximal_inverse"),
    Finding("torchflows 1.2.1", ("torchflows ProximalResFlowBlock",), "`Bijection.forward`: log Jacobian determinant",
            "the division is missing from the log-det", VOLUME, "torchflows_proximal_log_det"),
    Finding("torchflows 1.2.1", ("torchflows ProximalResFlowBlock",), "`Bijection.forward`: log Jacobian determinant",
            "far out it is finite and its gradient NaN", ("gradient.far-inputs",), "torchflows_proximal_far_gradient"),
    Finding("torchflows 1.2.1", (), "argument n_layers", "ProximalResFlowBlock with two layers raises in every call", ("hygiene.readable",),
            "torchflows_proximal_layers"),
    Finding("torchflows 1.2.1", ("torchflows Radial",), "\"associated log Jacobian determinant\"",
            "the map acts entry by entry, the log-det is that of the Euclidean distance", VOLUME, "torchflows_radial"),
    Finding("torchflows 1.2.1", ("torchflows DeepSigmoidalCoupling",), "`Bijection.forward`: log Jacobian determinant",
            "wrong sign of a logarithm, and a sum of logarithms for the logarithm of a sum: off by tens of nats",
            (*VOLUME, "logdet.of-the-inverse", "logdet.one-value", "gradient.through-inverse"), "torchflows_sigmoid"),
    Finding("torchflows 1.2.1", ("torchflows RQSForwardMaskedAutoregressive",),
            "`Bijection.inverse`: \"log Jacobian determinant of the inverse transform\"",
            "taken at entries of x that were inverted already; affine layers hide it", ("logdet.of-the-inverse", "logdet.one-value"),
            "torchflows_autoregressive_inverse"),
    Finding("FrEIA 0.2", ("FrEIA IResNetLayer, dense",), "mathematics: maximum likelihood",
            "the log-det has no gradient", ("gradient.log-det", "gradient.log-det-input"), "freia_log_det_gradient"),
    Finding("FrEIA 0.2", ("FrEIA IResNetLayer, dense",),
            "mathematics: log|det dF⁻¹| = −log|det dF| at x", "with rev=True the log-det is taken at y", ("logdet.of-the-inverse",),
            "freia_inverse_log_det"),
    Finding("FrEIA 0.2", ("FrEIA IResNetLayer, dense",), "name: forward is a map",
            "it sets requires_grad on the tensor of its caller", ("hygiene.caller-tensors-kept",), "freia_caller_tensor"),
    Finding("FrEIA 0.2", ("FrEIA IResNetLayer, convolutional",), "`spectral_norm_max` = 0.8",
            "lipschitz_correction of a convolutional IResNetLayer normalises another operator, the one without padding",
            ("lipschitz.layers",), "freia_convolution_norm"),
    Finding("FrEIA 0.2", ("FrEIA LearnedElementwiseScaling",), "\"the jacobian\" of the direction asked for",
            "with rev=True the log-det of the forward direction", ("logdet.of-the-inverse", "logdet.one-value"), "freia_scaling_inverse"),
    Finding("FrEIA 0.2", (), "one log-det an event", "InvertibleSigmoid on images returns one a pixel", ("hygiene.readable",),
            "freia_sigmoid_images"),
    Finding("FrEIA 0.2", ("FrEIA HaarUpsampling",), "name: forward is a map", "it changes its input in place", ("hygiene.input-kept",),
            "freia_haar_input"),
    *(
        Finding(f"{package} {version}", (f"{package} {layer}",), promise, found, checks, f"{package}_{file}")
        for package, version in (("enflows", "0.0.1"), ("flowcon", "0.0.4"))
        for layer, promise, found, checks, file in (
            ("iResBlock", "`_inverse_fixed_point` of iResBlock names atol = rtol = 1e-5",
             "it stops when the square of its step is below them",
             ("inverse.keeps-tolerance", "inverse.odd-inputs", "inverse.rows-are-independent", "convergence.worst-input"),
             "inverse_tolerance"),
            ("iResBlock", "`iResBlock`: \"an unbiased estimator for the logdet\"", "in training it returns an estimate of tr(J(I+J)⁻¹)",
             ("estimator.coefficients",), "training_log_det"),
            ("iResBlock", "name: the forward of iResBlock is a map", "in evaluation it sets requires_grad on the tensor of its caller",
             ("hygiene.caller-tensors-kept",), "caller_tensor"),
            ("MaskedShiftAutoregressiveTransform", "name: inverse", "forward adds 2·tanh(shift), inverse subtracts shift",
             (*INVERSE, "inverse.odd-inputs", "gradient.through-inverse"), "shift_inverse"),
            ("LeakyReLU", "name: the log-det of a leaky ReLU of this slope",
             "its log-slope is a trainable parameter, the slope of the map is fixed: wrong after one optimiser step",
             ("logdet.matches-determinant", "logdet.adds-up", "logdet.worst-input", "logdet.of-the-inverse", "gradient.log-det"),
             "leaky_relu"),
        )
    ),
    Finding("enflows 0.0.1", ("enflows DenseNet, csin",), "`DenseNet`: \"a fixed lipschitz constant\"",
            "its activation \"csin\" stretches by √2: norms above 1, a block that is not injective",
            (*NORM, "inverse.is-injective", "inverse.rows-are-independent"), "enflows_csin"),
    Finding("pyro-ppl 1.9.2", ("pyro Sylvester",), "`log_abs_det_jacobian(x, y)`",
            "its formula needs a triangular product that is not triangular; hidden by the initialisation", VOLUME, "pyro_sylvester"),
    Finding("deel-torchlip 1.0.5", ("torchlip SpectralConv2d, padding_mode='reflect'",), "\"k_coef_lip: Lipschitz constant to ensure\"",
            "not ensured with the padding mode \"reflect\", which is documented", (*NORM, "convergence.banach-rate"), "torchlip_reflect"),
    Finding("deel-torchlip 1.0.5", ("torchlip Sequential, k_coef_lip=0.5",),
            "`Sequential`: \"k_coef_lip: the Lipschitz coefficient to ensure globally on the model\"",
            "the layers have been built by then and ignore their share: norm 1 where 0.5 is asked for",
            (*NORM, "convergence.banach-rate", "lipschitz.all-magnitudes"), "torchlip_sequential"),
)

UNNORMALISED = dict.fromkeys(
    (*INVERSE, *NORM, *VOLUME, "inverse.is-injective", "inverse.odd-inputs", "convergence.banach-rate", "lipschitz.all-magnitudes",
     "logdet.within-bounds", "logdet.positive-determinant", "logdet.all-magnitudes", "gradient.through-inverse",
     "inverse.rows-are-independent"),
    "negative control: Lip(g) is above 4, so x + g(x) is not injective, and neither the iteration nor the series converges",
)


def declared(subject: str) -> dict[str, str]:
    """The declared failures of one subject of the gallery: check id -> promise and finding."""
    reasons: dict[str, list[str]] = {}
    for finding in FINDINGS:
        if subject in finding.subjects:
            for check in finding.checks:
                if check not in NOT_IN.get(subject, ()):
                    reasons.setdefault(check, []).append(f"{finding.promise}: {finding.found}")
    return {check: "; ".join(found) for check, found in reasons.items()}


NOT_IN = {
    **dict.fromkeys(BLOCKS, ("density.change-of-variables",)),  # a block has no density
    FLOW: ("logdet.of-the-inverse", "estimator.coefficients"),
}
"""Checks that a finding fails in its other subjects, and not here."""


def table() -> str:
    """The Markdown table of docs/gallery.md."""
    rows = ["| package | object | promise | finding | checks | reproduction |", "|---|---|---|---|---|---|"]
    for f in FINDINGS:
        objects = ", ".join(dict.fromkeys(s.split(", ")[0].split(" ", 1)[1] for s in f.subjects)) or "—"
        link = f"[{f.reproduction}](../examples/findings/{f.reproduction}.py)"
        cells = (f.package, objects, f.promise, f.found, ", ".join(f"`{c}`" for c in f.checks) or "(read)", link)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)
