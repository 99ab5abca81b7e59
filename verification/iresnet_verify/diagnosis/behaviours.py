"""Checks whose claim names one mistake: where one fails, it is the cause, and other failures may follow from it.

The order is that of causes: of two that fail, the earlier is shown first, and what it brings about is folded under it. Checks of
values (a log-det, an inverse, a bound, a gradient) are not here: what is wrong with those the hypotheses say.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from iresnet_verify.check.registry import FINITE, NOT_RANDOM, READABLE


@dataclass(frozen=True)
class Behaviour:
    """One mistake: what is wrong, what to change, and patterns of the checks that may fail because of it."""

    wrong: str
    change: str
    brings: tuple[str, ...] = ()

    @property
    def brings_everything(self) -> bool:
        """Whether any other check may fail because of it."""
        return "*" in self.brings

    def follows(self, check: str) -> bool:
        """Whether a failure of `check` may follow."""
        return check in self.brings or (check not in INDEPENDENT and any(fnmatchcase(check, pattern) for pattern in self.brings))


EVERYTHING = ("*",)
INDEPENDENT = ("hygiene.memory",)
"""What follows from no mistake that does not name it: rows may depend on each other without anything being kept."""
LIPSCHITZ = ("lipschitz.*", "convergence.banach-rate", "convergence.worst-input", "convergence.is-reported", "inverse.is-injective",
             "inverse.unique-preimage", "logdet.within-bounds", "logdet.positive-determinant")
INVERSE = ("inverse.*", "convergence.is-reported", "convergence.worst-input", "gradient.through-inverse")
OF_THE_DENSITY = ("density.change-of-variables", "density.integrates-to-one", "density.samples-follow-log-prob")
OF_THE_INVERSE = ("logdet.of-the-inverse", "logdet.one-value")
VALUES = ("logdet.*", "estimator.*", "gradient.*", "density.*", "parity.*")

BEHAVIOURS: dict[str, Behaviour] = {
    READABLE: Behaviour("The subject does not answer in the promised form.", "Correct the declaration named below."),
    FINITE: Behaviour("forward gives NaN or infinity at the subject's own inputs.", "Look for infinite parameters, overflow and divisions "
                      "by 0, or declare inputs= where F is finite."),
    NOT_RANDOM: Behaviour("forward is random.", "Look for dropout or noise inside forward, or declare modes=('eval',)."),
    "hygiene.input-kept": Behaviour("A call changes or frees the caller's array.", "Work on a copy.",
                                     (*EVERYTHING, "hygiene.memory")),  # a graph that saves the array it is written into is never freed
    "hygiene.global-settings-kept": Behaviour("A call leaves a global setting or the module's mode changed.", "Put it back.",
                                              ("hygiene.*", "state.*", "gradient.*")),
    "hygiene.exact-log-det-not-random": Behaviour(
        "Your log-det is random.", "Declare log_det_is='unbiased'; the other checks judge it as if you had.",
        ("hygiene.global-randomness-kept",)),
    "hygiene.determinism": Behaviour("What a call returns depends on how many calls came before.", "Do not let a call change what the next "
                                     "one computes.", EVERYTHING),
    "hygiene.dtype-kept": Behaviour("Arrays come back in another dtype or on another device than the argument's.", "Compute in the dtype "
                                    "and on the device of the argument.",
                                    ("parity.*", "gradient.*", "density.*", "logdet.*", "inverse.*", "convergence.*", "hygiene.*")),
    "hygiene.batch-independence": Behaviour("A row's answer depends on the other rows of its batch.", "Reduce over the axes of the event "
                                            "only, never over the batch.", EVERYTHING),
    "hygiene.context-of-each-row": Behaviour("A row is not mapped by its own conditioning event.", "Use each row's own context.",
                                             ("inverse.*", "logdet.*", "hygiene.*")),
    "lipschitz.residual-of-forward": Behaviour("The residual given is not F(x) − x.", "Give the g of F(x) = x + g(x).", LIPSCHITZ),
    "lipschitz.newly-built": Behaviour("A newly built network does not keep its claimed bound.", "Normalise when the network is built, not "
                                       "in its first training step.", (*LIPSCHITZ, "logdet.matches-determinant")),
    "logdet.positive-determinant": Behaviour("The determinant is negative, which no residual block with Lip(g) < 1 has.",
                                             "The claimed bound is wrong: F is no such block.", LIPSCHITZ),
    "inverse.separates-inputs": Behaviour("F is not injective: along a null direction of its Jacobian all inputs have one image.",
                                          "Look for a projection, a ReLU, a bottleneck or a singular weight.", (*INVERSE, "logdet.*")),
    "lipschitz.layers": Behaviour("A linear layer is above the norm claimed for it.", "Normalise it by the norm of its operator on the "
        "grid "
                                  "where it is used.", LIPSCHITZ),
    "lipschitz.bounds-jacobian": Behaviour("The claimed bound on Lip(g) is false.", "Raise the claim, or normalise g further.",
                                           LIPSCHITZ),
    "lipschitz.bounds-pairs": Behaviour("g jumps: it moves apart points that are close, although its Jacobian is small.",
                                        "Look for a comparison, a rounding or an index in g.", LIPSCHITZ),
    "lipschitz.bounds-stretch": Behaviour("F stretches further than the claimed bound allows.", "Raise the claim, or normalise g further.",
                                          LIPSCHITZ),
    "inverse.is-injective": Behaviour("F is not injective: it folds, two inputs have one image.", "Bound Lip(g) below 1.",
                                      (*INVERSE, *OF_THE_INVERSE)),
    "inverse.unique-preimage": Behaviour("F is not injective: an image has a second preimage.", "Bound Lip(g) below 1.",
                                         (*INVERSE, *OF_THE_INVERSE)),
    "lipschitz.after-optimiser-step": Behaviour("The norms are those from before the optimiser's step: the bound fails after it.",
                                                "Normalise anew after every step, or at every use.", LIPSCHITZ),
    "lipschitz.survives-parameters": Behaviour("The bound does not hold for other parameters, although it is claimed to.",
                                               "Normalise at every use, let refresh do it, or claim lipschitz_holds='now'.", LIPSCHITZ),
    "lipschitz.other-shapes": Behaviour("The bound fails at another declared image size: the norm is that of one grid.",
                                        "Take the norm on each grid, or one that bounds all of them.", ("lipschitz.*",)),
    "inverse.odd-inputs": Behaviour("F or its inverse fails at inputs of odd structure: zeros, ties, spikes.",
                                    "Look for a division by ‖x‖, a comparison of entries, an index.",
                                    ("lipschitz.all-magnitudes", "inverse.*", "convergence.*", "logdet.*")),
    "lipschitz.all-magnitudes": Behaviour("The bound fails, or g overflows, far from the data.", "Look for a polynomial, an exponential "
        "or a "
                                          "softplus that is written out.", LIPSCHITZ),
    "convergence.banach-rate": Behaviour("The fixed-point iteration shrinks more slowly than the claimed bound.", "Raise the claim.",
                                         ("convergence.*",)),
    "inverse.rows-are-independent": Behaviour("A row's preimage depends on the other rows of its batch.", "Stop each row by its own "
        "residual.",
                                              INVERSE),
    "convergence.is-reported": Behaviour("The inverse gives a wrong answer without a word where it does not converge.",
                                         "Raise, warn, or return NaN where the residual stays large.", INVERSE),
    "convergence.worst-input": Behaviour("There are inputs, found by search, at which the inverse breaks its promise.",
                                         "Iterate until the residual is small, and report a failure.", INVERSE),
    "inverse.keeps-precision": Behaviour("The inverse computes in a narrower dtype than its argument's.", "Compute in the argument's "
        "dtype.",
                                         INVERSE),
    "inverse.other-shapes": Behaviour("The inverse is wrong at another declared event shape.", "Look for a size that is written out.", ()),
    "logdet.finite": Behaviour("The log-det is NaN or infinite at finite inputs.", "Take log|det| by slogdet.", ("logdet.*", "gradient.*",
                                                                                                      "density.*", "estimator.*")),
    "logdet.accounts-for-saturation": Behaviour("F maps far inputs to one image, and its log-det does not know.",
                                                "Remove the clamp, or let the log-det fall with it.", ("logdet.*", "inverse.*")),
    "parity.packed-log-det": Behaviour("The log-det that forward returns is not the one that log_det returns.", "Let both use one code "
        "path.",
                                       ("logdet.*", "gradient.*", "density.*")),
    "logdet.other-shapes": Behaviour("The log-det is wrong at another declared event shape: it counts the pixels of one image size.",
                                     "Use the size of the argument.", ()),
    "logdet.adds-up": Behaviour("Two calls of the log-det in one graph disturb each other: a result is kept or overwritten by the next "
        "call.",
                                "Return a new array in every call.", ("gradient.*",)),
    "logdet.worst-input": Behaviour("There are inputs, found by search, at which the log-det is off by more than declared.",
                                    "Take more terms, or declare the bias at the claimed Lipschitz constant.", ("logdet.*",)),
    "logdet.all-magnitudes": Behaviour("The log-det is wrong or overflows far from the data.", "Look for an exponential that is written "
        "out.",
                                       ("logdet.*",)),
    "logdet.depends-on-input": Behaviour("The log-det does not depend on x.", "Evaluate it at x.", ("logdet.*", "gradient.*")),
    "estimator.variance": Behaviour("The estimate has infinite variance.", "Draw geometric lengths with a probability to continue above "
        "L².",
                                    ("estimator.*", "logdet.*")),
    "estimator.coefficients": Behaviour("A weight of the random series is wrong.", "Divide term k by P(N ≥ "
        "k).", ("estimator.*", "logdet.*")),
    "estimator.length-per-row": Behaviour("Rows share one series length.", "Draw a length for each row, or say that they share it.", ()),
    "estimator.standard-error": Behaviour("The standard error is not that of the value.", "Take the spread of independent replicates, each "
                                          "with its own length.", ()),
    "density.samples": Behaviour("sample(n) does not give n finite, different events.", "Draw from the base and invert.", ("density.*",)),
    "density.samples-follow-log-prob": Behaviour("The samples do not have the density exp(log_prob).", "Draw from the base density and "
        "invert; "
                                                 "look for a temperature.", ()),
    "density.integrates-to-one": Behaviour("exp(log_prob) does not integrate to 1.", "Look for a missing constant.", ()),
    "gradient.repeated-backward": Behaviour("A second backward pass over one graph gives something else than the first.",
                                            "Keep what the backward pass saved as it is.", ("gradient.*",)),
    "gradient.frozen-parameters": Behaviour("A frozen parameter makes the backward pass fail, or gets a gradient.",
                                            "Ask for gradients of those parameters only that require them.", ("gradient.*",)),
    "gradient.log-prob": Behaviour("The gradient of log_prob is not that of its values.", "Look for a detached log-det or base "
        "density.", ()),
    "gradient.far-inputs": Behaviour("At the origin or far out a backward pass gives NaN or something else than the differences.",
                                     "Look for a where whose other branch overflows, a root or a norm at 0.", ()),
    "gradient.masked-rows": Behaviour("A row of weight 0 adds to the gradient.", "Use each row's own upstream gradient.", ("gradient.*",)),
    "hygiene.global-randomness-kept": Behaviour("A call seeds or consumes a global random generator.", "Draw from a generator of your "
        "own, or "
                                                "only where something is random.", ()),
    "hygiene.caller-tensors-kept": Behaviour("A call leaves requires_grad or .grad of the caller's tensors, or values of parameters, "
                                             "changed.",
                                             "Work on a detached copy, and use torch.autograd.grad.", ("gradient.*",)),
    "hygiene.single-row": Behaviour("A batch of one row is answered in another shape, or otherwise than in a larger batch.",
                                    "Do not squeeze.", ()),
    "hygiene.empty-batch": Behaviour("An empty batch is not answered by an empty batch.", "Return an empty array, or raise.", ()),
    "hygiene.non-finite-rows": Behaviour("A row with NaN or infinity is hidden, or spoils other rows.", "Let NaN through, row by row.", ()),
    "hygiene.no-grad": Behaviour("Under torch.no_grad the values are others.", "Raise where autograd is needed and off, or turn it on.",
                                 ("hygiene.inference-mode",)),
    "hygiene.inference-mode": Behaviour("Under torch.inference_mode the values are others.", "Raise there.", ()),
    "hygiene.wrong-event-shape": Behaviour("Events of another shape are cut or mapped instead of refused.", "Check the shape.", ()),
    "hygiene.threads": Behaviour("Calls from several threads disturb each other: something is kept on the module between two lines.",
                                 "Pass it on as an argument.", ()),
    "hygiene.memory": Behaviour("Every call leaves memory or a graph behind.", "Detach what is kept, and keep no results.", ()),
    "hygiene.non-contiguous": Behaviour("Strided arrays are read as if they were contiguous.", "Use the array's own strides.",
                                        ("hygiene.*", "gradient.*")),
    "hygiene.autocast": Behaviour("Under autocast to bfloat16 the values are not finite or far off.", "Look for an eps below its rounding.",
                                  ("state.moves-device",)),
    "state.after-optimiser-step": Behaviour("Evaluation uses what it kept from before the optimiser's step.", "Compute it anew after a "
        "step.",
                                            ("state.*", "parity.*")),
    "state.save-and-load": Behaviour("A loaded network is another one: something that forward needs is not in state_dict(), or is kept "
        "from "
                                     "before.", "Register it as a buffer, and drop what is kept when loading.",
                                     ("state.*", "parity.across-precisions")),
    "state.arguments-act": Behaviour("A constructor argument changes nothing.", "Read it where it should act.", ()),
    "state.copies": Behaviour("A copy shares memory with the original, or answers otherwise.", "Let copy.deepcopy copy.", ("state.*",)),
    "state.moves-device": Behaviour("A tensor that forward reads stays behind when the module is moved.", "Register it as a buffer.", ()),
    "parity.across-precisions": Behaviour("In float32 it is another map than in float64.", "Look for a branch on the dtype.", ()),
    "parity.precision": Behaviour("forward computes in a narrower dtype than its argument's.", "Compute in the argument's dtype.",
                                  ("gradient.*", "logdet.*", "inverse.*", "convergence.*")),
    "parity.train-and-eval": Behaviour("Training and evaluation mode are two maps.", "Declare the mode in which the promises hold.",
                                       ("state.*",)),
}
