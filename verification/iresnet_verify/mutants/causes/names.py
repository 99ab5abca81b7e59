"""The mistake of each mutant in the words of the diagnosis: the name of a hypothesis, or the id of the check whose claim names it.

The diagnosis never reads this; the confusion table compares it with what was shown first. Where two mistakes give the same numbers (all
signs of a series flipped, and minus the log-det), they have one name.
"""

from __future__ import annotations

CAUSES: dict[str, str] = {}


def _table(group: str, rows: str) -> None:
    """Add "mistake cause" lines."""
    for row in rows.split("\n"):
        if row.strip():
            name, cause = row.split()
            CAUSES[f"{group}/{name}"] = cause


_table("inverse", """
    projection-onto-a-plane inverse.separates-inputs
    relu inverse.separates-inputs
    hidden-layer-narrower-than-the-input inverse.separates-inputs
    residual-branch-that-takes-directions-away inverse.separates-inputs
    singular-1-1-convolution inverse.separates-inputs
    five-iterations fixed-number-of-steps
    wrong-sign inverse-sign
    squared-step stops-early
    step-instead-of-residual stops-early
    garbage-far-away clipped
    hides-failure fixed-number-of-steps
    float32-inside float32-inside
    cached cached
    folded inverse.is-injective
    folded-in-eight-dimensions inverse.is-injective
    first-row-decides-for-all rows-stop-together
    mean-residual-decides rows-stop-together
    one-step fixed-number-of-steps
    twenty-iterations-whatever-the-constant fixed-number-of-steps
    bias-forgotten parameter-forgotten
    old-weights parameter-stale
    in-training-mode inverse-random
    blocks-in-the-order-of-the-forward-pass order-of-blocks
    rows-in-reverse-order rows-permuted
    rounded-to-half-precision float32-inside
""")
_table("lipschitz", """
    norm-1-2-claimed-9 weights-above-claim
    norm-90001-claimed-9 weights-above-claim
    steep-in-a-small-region lipschitz.bounds-jacobian
    scaled-skip lipschitz.residual-of-forward
    reflection logdet.positive-determinant
    jump lipschitz.bounds-pairs
    stale-refresh lipschitz.survives-parameters
    normalised-once-claimed-always lipschitz.survives-parameters
    exponential-overflows lipschitz.all-magnitudes
    quadratic-tails lipschitz.all-magnitudes
    activation-constant-forgotten beyond-the-weights
    larger-constant-for-a-sum beyond-the-weights
    concatenation-constant-forgotten beyond-the-weights
    second-layer-not-normalised weights-above-claim
    norm-at-a-stale-vector norm-along-one-vector
    sine-of-slope-2-between-layers beyond-the-weights
    activation-that-is-steep-at-40-only beyond-the-weights
    branch-that-is-steep-at-40-only lipschitz.bounds-jacobian
    selu-taken-for-1-lipschitz beyond-the-weights
    max-pooling-at-stride-1 lipschitz.bounds-jacobian
    largest-entry-for-the-norm entry-for-norm
""")
_table("logdet", """
    clamp-inside-a-squashing-function logdet.accounts-for-saturation
    clamped-output logdet.accounts-for-saturation
    series-claimed-exact cut-short
    first-term-only cut-short
    wrong-sign sign
    every-sign-of-the-series-flipped sign
    bias-larger-than-declared cut-short
    float32-inside-float64 float32-inside
    surrogate-under-the-log-det-s-name missing-1/k
    in-bits-not-in-nats factor
    per-dimension factor
    evaluated-at-y at-another-point
    identity-forgotten identity-forgotten
    diagonal-only diagonal-only
    activation-slopes-forgotten constant
    rows-shifted-by-one rows-permuted
    summed-over-the-batch reduced-over-the-batch
    constant one-row-for-all
    scaled-beyond-the-bounds factor
    not-a-number not-finite
    of-the-inverse-at-y at-another-point
    of-the-inverse-random-at-y at-another-point
    of-the-inverse-without-the-minus-sign sign
    a-random-series-claimed-exact hygiene.exact-log-det-not-random
""")
_table("estimator", """
    every-term-with-sign series-without-signs
    every-sign-flipped sign
    missing-1-k missing-1/k
    1-k-1-for-1-k k-off-by-one
    weights-off-by-one weights-off-by-one
    p-n-k-for-p-n-k probability-of-n-for-tail
    continuation-and-stop-exchanged stop-for-continue
    weights-forgotten weights-forgotten
    even-terms-dropped terms-dropped
    third-term-dropped terms-dropped
    one-length-per-batch-wrong-weight weights-off-by-one
    mean-over-dimensions factor
    probes-added-up-not-averaged factor
    probes-of-variance-1-21 factor
    uniform-probes probes-not-centred
    probes-of-unit-length factor
    one-probe-for-the-whole-series-but-the-first constant-added
    bias-of-a-thousandth constant-added
    series-claimed-unbiased cut-short
    poisson-lengths estimator.variance
    continuation-below-the-square-of-l estimator.variance
""")
_table("gradient", """
    detached detached
    cut-in-one-layer parameter-detached
    second-derivative-lost slopes-detached
    first-row-s-weight-for-all first-weight-for-all
    mean-weight-for-all mean-weight-for-all
    weights-ignored weights-ignored
    divided-by-the-batch gradient-factor
    sign-of-the-gradient gradient-sign
    doubled gradient-factor
    x-detached parameter-detached
    random-first-row-s-weight first-weight-for-all
    neumann-weights-off-by-one neumann-weights
    neumann-without-alternating-sign neumann-without-signs
    first-row-s-weight-in-the-map first-weight-for-all
    a-parameter-counted-again-in-the-backward-pass one-parameter-wrong
    branch-doubled-in-the-backward-pass gradient-factor
    backward-changes-what-it-saved gradient.repeated-backward
    backward-frees-what-it-saved gradient.repeated-backward
    last-step-of-the-inverse-alone last-step-alone
    implicit-gradient-not-inverted gradient-not-inverted
    a-frozen-parameter-raises gradient.frozen-parameters
""")
_table("density", """
    log-det-subtracted sign
    log-det-forgotten log-det-missing
    base-density-at-x base-at-x
    one-dimension-too-few-in-the-base constant-added
    in-bits factor
    bits-per-dimension-off-by-log-2 constant-added
    not-normalised-d-1 density.integrates-to-one
    not-normalised-d-2 density.integrates-to-one
    temperature-8 density.samples-follow-log-prob
    samples-not-inverted density.samples-follow-log-prob
    samples-too-far-out density.samples-follow-log-prob
    constant-samples density.samples
    samples-are-not-numbers density.samples
""")
_table("hygiene", """
    rows-coupled hygiene.batch-independence
    input-mutated hygiene.input-kept
    input-freed hygiene.input-kept
    float32-for-float64 hygiene.dtype-kept
    global-seeding hygiene.global-randomness-kept
    global-draw hygiene.global-randomness-kept
    nan-hidden hygiene.non-finite-rows
    nan-spread hygiene.non-finite-rows
    empty-batch hygiene.empty-batch
    single-row hygiene.single-row
    gradient-mode-left-off hygiene.global-settings-kept
    threads hygiene.global-settings-kept
    estimate-seeds-globally hygiene.global-randomness-kept
    estimate-zero-under-no-grad hygiene.no-grad
    dropout-in-eval hygiene.forward-not-random
    dropout-in-training hygiene.forward-not-random
    infinite-scale hygiene.forward-finite
    requires-grad-left hygiene.caller-tensors-kept
    grad-left hygiene.caller-tensors-kept
    default-dtype hygiene.global-settings-kept
    mode-switched hygiene.global-settings-kept
    zero-under-no-grad hygiene.no-grad
    zero-under-inference-mode hygiene.inference-mode
    call-count hygiene.determinism
    exact-log-det-is-random hygiene.exact-log-det-not-random
    wrong-shape-accepted hygiene.wrong-event-shape
    input-kept-between-lines hygiene.threads
    results-kept hygiene.memory
    graphs-kept hygiene.memory
    strides-ignored hygiene.non-contiguous
""")
_table("state", """
    actnorm-flag-lost state.save-and-load
    buffer-not-saved state.save-and-load
    buffer-not-saved-same-when-new state.save-and-load
    buffer-registered-late state.save-and-load
    float32-differs parity.across-precisions
    train-differs-from-eval parity.train-and-eval
    float32-inside parity.precision
    packed-sign sign
    shared-copy state.copies
""")
_table("batches", """
    root-mean-square-of-all-steps-decides rows-stop-together
    mean-step-decides rows-stop-together
    median-step-decides rows-stop-together
    last-row-decides rows-stop-together
    the-first-row-s-context-for-all hygiene.context-of-each-row
    the-mean-context-for-all hygiene.context-of-each-row
    the-first-row-s-context-for-all-in-the-inverse hygiene.context-of-each-row
    log-det-squeezed-to-no-axis hygiene.single-row
    packed-log-det-squeezed-to-no-axis hygiene.single-row
    residual-centred-over-the-batch hygiene.batch-independence
    norm-at-the-first-image-size-met lipschitz.other-shapes
""")
_table("convolution", """
    norm-of-the-reshaped-kernel reshaped-kernel-norm
    norm-at-another-grid norm-at-another-grid
    padding-forgotten-in-the-norm norm-without-padding
    padding-of-the-transpose weights-above-claim
    norm-with-a-stride-that-is-not-used norm-with-another-stride
    two-power-iterations norm-along-one-vector
    norm-of-the-centre norm-of-the-centre
""")
_table("extremes", """
    a-rotation-that-wraps-around inverse.unique-preimage
    a-division-by-the-norm-of-x inverse.odd-inputs
    a-jump-where-two-entries-are-equal inverse.odd-inputs
    terms-enough-for-typical-inputs-only cut-short
    a-log-det-that-overflows-far-away logdet.all-magnitudes
    a-fifth-weight-off-by-a-millionth one-weight-wrong
    a-wrong-second-weight-made-up-for one-weight-wrong
""")
_table("layers", """
    norm-of-the-reshaped-kernel reshaped-kernel-norm
    norm-at-a-smaller-grid norm-at-another-grid
    norm-with-another-stride reshaped-kernel-norm
    norm-without-the-padding norm-without-padding
    norm-by-one-power-iteration norm-along-one-vector
    one-layer-above-its-own-norm-the-product-below lipschitz.layers
""")
_table("lifetime", """
    not-normalised-before-the-first-training-step lipschitz.newly-built
    norms-kept-from-before-the-optimiser-s-step lipschitz.after-optimiser-step
    norm-at-a-smaller-image lipschitz.other-shapes
    pixels-of-one-image-size-in-the-log-det logdet.other-shapes
    an-inverse-for-one-image-size inverse.other-shapes
    a-log-det-that-the-next-call-overwrites logdet.adds-up
    the-mean-upstream-gradient-for-every-row mean-weight-for-all
    an-eps-that-bfloat16-does-not-see hygiene.autocast
    a-tensor-that-to-leaves-behind state.moves-device
    standard-error-of-16-draws-divided-by-4-twice estimator.standard-error
    standard-error-from-draws-that-share-a-length estimator.standard-error
    variance-for-standard-error estimator.standard-error
""")
_table("reference", """
    tolerance-of-the-inverse-squared-away stops-early
    inverse-of-the-branch-at-y fixed-number-of-steps
    inverse-with-one-newton-step fixed-number-of-steps
    inverse-not-certified-after-8-evaluations fixed-number-of-steps
    determinant-of-j identity-forgotten
    determinant-of-i-j minus-j
    trace-for-log-det cut-short
    two-traces-for-log-det cut-short
    a-factor-left-out factor-left-out
    rotation-of-the-factors-without-the-batch one-row-for-all
    determinant-in-float32 float32-inside
    roulette-survival-one-later weights-off-by-one
    roulette-survival-one-earlier weights-off-by-one
    roulette-1-k-missing missing-1/k
    roulette-sign-missing series-without-signs
    roulette-survival-missing weights-forgotten
    roulette-two-products-a-term two-products-a-term
    certificate-of-one-layer lipschitz.bounds-jacobian
    certificate-squared lipschitz.bounds-jacobian
    certificate-one-percent-low lipschitz.bounds-jacobian
    certificate-rounded-down lipschitz.bounds-jacobian
""")
_table("training", """
    effective-weight-of-the-last-training-forward state.after-optimiser-step
    log-det-kept-from-before-the-step state.after-optimiser-step
    inverse-kept-from-before-the-step state.after-optimiser-step
    norm-kept-from-before-the-step state.after-optimiser-step
    effective-weight-kept-and-the-same-when-new state.save-and-load
    loading-into-a-used-network-keeps-its-weight state.save-and-load
    running-mean-that-holds-its-graphs hygiene.memory
    running-norm-of-weights-that-holds-its-graphs hygiene.memory
    list-of-losses-in-training-mode hygiene.memory
""")
AFTER: frozenset[str] = frozenset()
"""Mutants that were written after the hypotheses."""
