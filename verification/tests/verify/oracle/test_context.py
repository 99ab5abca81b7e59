"""Reading, calling and restoring: what stands between somebody's network and the checks."""

from __future__ import annotations

import math
import random
import sys
import warnings

import numpy as np
import pytest
import torch

from iresnet_verify import Subject
from iresnet_verify.check.budget import BUDGETS
from iresnet_verify.check.context import Context
from iresnet_verify.running.run import Prepared
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.frameworks import NumpyFramework, TorchFramework, changed_globals
from iresnet_verify.subject.module_state import ModuleState, preserved
from iresnet_verify.subject.seeds import derived_seed
from iresnet_verify.subject.validation import validate

A = np.array([[1.3, 0.4, -0.2], [0.1, 0.8, 0.5], [-0.6, 0.3, 1.1]])
LOG_DET = float(np.linalg.slogdet(A)[1])


def linear(x):
    return x @ torch.tensor(A.T, dtype=x.dtype)


def make(forward=linear, **fields):
    return Subject(**{"name": "t", "event_shape": (3,), "forward": forward, **fields})


def context(subject, mode=None, check_id="logdet.test", seed=0):
    prepared = Prepared(subject, seed)
    return Context(
        subject, check_id, mode, seed, BUDGETS["quick"], 1e-6, prepared.framework, prepared.conventions(mode)
    )


# -- packing and log-det shapes met in the wild

SHAPES = {
    "(B,)": lambda x: torch.full((len(x),), LOG_DET, dtype=x.dtype),
    "(B, 1)": lambda x: torch.full((len(x), 1), LOG_DET, dtype=x.dtype),
    "(B, 1, 1)": lambda x: torch.full((len(x), 1, 1), LOG_DET, dtype=x.dtype),
    "(1,)": lambda x: torch.full((1,), LOG_DET, dtype=x.dtype),
    "()": lambda x: torch.tensor(LOG_DET, dtype=x.dtype),
    "a Python number": lambda x: LOG_DET,
    "element-wise (B, *event)": lambda x: torch.full((len(x), 3), LOG_DET / 3, dtype=x.dtype),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("rows", [0, 1, 3, 8])
def test_every_log_det_shape_becomes_one_number_per_row(kind, rows):
    ctx = context(make(log_det=SHAPES[kind]))
    assert ctx.conventions.formats["log_det"] == kind
    found = ctx.f.log_det(np.ones((rows, 3)))
    assert found.shape == (rows,)
    assert found.dtype == np.float64
    assert np.abs(found - LOG_DET).max(initial=0.0) <= 4 * 2.0**-53
    raw = ctx.raw_log_det(ctx.native(np.ones((rows, 3))))
    assert tuple(raw.shape) == (rows,)


def test_element_wise_log_dets_are_summed_over_the_event_and_not_the_batch():
    ctx = context(make(lambda x: x.exp(), event_shape=(2, 3), log_det=lambda x: x))
    x = ctx.inputs(4)
    assert np.allclose(ctx.f.log_det(x), x.sum(axis=(1, 2)), rtol=0, atol=6 * 2.0**-53 * np.abs(x).sum())


def test_a_normalised_log_det_is_still_differentiable():
    ctx = context(make(lambda x: x.exp(), log_det=lambda x: x))
    x = ctx.native(np.ones((4, 3)), requires_grad=True)
    gradient = torch.autograd.grad((ctx.raw_log_det(x) * torch.arange(4.0)).sum(), x)[0]
    assert torch.equal(gradient, torch.arange(4.0, dtype=torch.float64)[:, None].expand(4, 3))


def test_a_log_det_with_stride_zero_is_read_and_never_written_into():
    one = torch.tensor(LOG_DET, dtype=torch.float64)
    ctx = context(make(log_det=lambda x: one.expand(len(x))))
    found = ctx.f.log_det(np.ones((4, 3)))
    found[0] = 7.0
    assert float(one) == LOG_DET
    assert (ctx.f.log_det(np.ones((4, 3))) == LOG_DET).all()


PACKINGS = {
    "y": lambda y, d: y,
    "[y]": lambda y, d: [y],
    "(y, log_det)": lambda y, d: (y, d),
    "([y], log_det)": lambda y, d: ([y], d),
    "(y, None)": lambda y, d: (y, None),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_is_read(packing):
    ctx = context(make(lambda x: PACKINGS[packing](linear(x), SHAPES["(B,)"](x))))
    x = ctx.inputs(4)
    assert ctx.conventions.formats["forward"] == packing
    assert np.allclose(ctx.f.forward(x), x @ A.T, rtol=0, atol=1e-14)
    if "log_det" in packing:
        assert np.allclose(ctx.f.log_det(x), LOG_DET, rtol=0, atol=1e-15)
        assert ctx.log_det_claim == ("exact", 0.0)
    else:
        assert ctx.f.log_det is None
        assert ctx.log_det_claim == ("none", math.inf)


def test_a_packed_inverse_gives_the_inverse_log_det():
    back = torch.tensor(np.linalg.inv(A).T)
    ctx = context(make(inverse=lambda y: (y @ back, -LOG_DET)))
    y = ctx.inputs(4)
    assert (ctx.f.inverse_log_det(y) == -LOG_DET).all()
    assert np.allclose(ctx.f.inverse(y), y @ np.linalg.inv(A).T, rtol=0, atol=1e-14)


def test_log_det_of_its_own_wins_over_a_packed_one():
    ctx = context(make(lambda x: (linear(x), 5.0), log_det=lambda x: 6.0))
    assert (ctx.f.log_det(ctx.inputs(2)) == 6.0).all()
    assert (ctx.host(ctx.raw_forward(ctx.native(ctx.inputs(2)))[1]) == 5.0).all()


NONSENSE = {
    "transposed": (lambda x: linear(x).T, r"expected shape \(5, 3\), got \(3, 5\); try"),
    "summed": (lambda x: linear(x).sum(), r"expected shape \(5, 3\), got \(\); try"),
    "None": (lambda x: None, "expected a torch.Tensor of shape .* got NoneType; try"),
    "NumPy": (lambda x: linear(x).numpy(), "expected a torch.Tensor .* got numpy float64 .*; try"),
    "integers": (lambda x: linear(x).long(), "expected a floating dtype, got int64; try"),
    "complex": (lambda x: linear(x).to(torch.complex128), "expected a floating dtype, got complex128; try"),
    "three": (lambda x: (linear(x), 0.0, 0.0), r"expected y or \(y, log_det\), got a tuple of 3 .*; try"),
    "parts": (lambda x: ([x, x], 0.0), "expected one event array, got a list of 2 .*; try"),
    "log-det per column": (lambda x: (x, x.sum(0)), r"expected a log-det of shape \(5,\).*, got \(3,\); try"),
    "log-det text": (lambda x: (x, "0"), "expected a log-det of shape .*, got str '0'; try"),
    "raises": (lambda x: 1 / 0, r"ZeroDivisionError: division by zero \(test_context.py:\d+ in .*; try"),
    "exits": (lambda x: sys.exit(3), r"SystemExit: 3 .*; try"),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_one_message_with_expected_got_and_try(kind):
    forward, message = NONSENSE[kind]
    conventions = Prepared(make(forward)).conventions(None)
    assert list(conventions.broken) == ["forward"]
    assert conventions.broken["forward"].count("\n") == 0
    with pytest.raises(SubjectError, match=message):
        raise SubjectError(conventions.broken["forward"])


def test_a_narrower_output_is_converted_and_recorded():
    ctx = context(make(lambda x: linear(x).float()))
    assert ctx.conventions.formats["forward dtype"] == "float32, converted to float64"
    assert ctx.f.forward(ctx.inputs(2)).dtype == np.float64


def test_what_is_broken_does_not_hide_what_works():
    subject = make(inverse=lambda y: y[:1], log_det=lambda x: LOG_DET)
    conventions = Prepared(subject).conventions(None)
    assert list(conventions.broken) == ["inverse"]
    assert "log_det" in conventions.formats


@pytest.mark.parametrize("bad", [
    lambda n, rng: rng.standard_normal((n, 4)),
    lambda n, rng: np.full((n, 3), np.nan),
    lambda n, rng: rng.integers(0, 2, (n, 3)),
    lambda n, rng: 1 / 0,
])
def test_bad_inputs_are_reported_once_and_block_what_needs_them(bad):
    conventions = Prepared(make(inputs=bad)).conventions(None)
    assert set(conventions.broken) == {"inputs", "forward"}
    assert conventions.broken["inputs"].startswith("inputs: expected")


# -- how a subject is called

def test_calls_get_fresh_contiguous_leaves_that_need_no_gradient():
    seen = []

    def forward(x):
        seen.append((x.requires_grad, x.is_leaf, x.is_contiguous(), torch.is_grad_enabled()))
        return linear(x).mul_(1.0)

    ctx = context(make(forward))
    x = np.asfortranarray(ctx.inputs(4))
    kept = x.copy()
    with torch.no_grad():
        ctx.f.forward(x)
    assert seen == [(False, True, True, True)] * len(seen)
    assert len(seen) > 1
    assert np.array_equal(x, kept)


def test_a_subject_that_mutates_its_input_does_not_mutate_ours():
    for framework, zero in (("torch", lambda x: x.zero_()), ("numpy", lambda x: x.fill(0) or x)):
        ctx = context(make(zero, framework=framework))
        x = ctx.inputs(3)
        kept = x.copy()
        ctx.f.forward(x)
        assert np.array_equal(x, kept)


def test_every_call_is_seeded_afresh_and_equal_contexts_agree():
    draws = []

    def forward(x):
        draws.append((random.random(), float(np.random.rand()), float(torch.rand(()))))  # noqa: NPY002 - audited
        return x

    runs = []
    for _ in range(2):
        ctx = context(make(forward))
        draws.clear()
        ctx.f.forward(ctx.inputs(2))
        ctx.f.forward(ctx.inputs(2))
        runs.append(list(draws))
    assert runs[0] == runs[1]  # the same check sees the same randomness, whatever ran before
    assert [len({d[i] for d in draws}) for i in range(3)] == [2, 2, 2]


def test_evaluate_log_det_is_a_function_of_its_seed():
    ctx = context(make(log_det=lambda x: torch.randn(len(x), dtype=x.dtype)))
    x = ctx.inputs(4)
    first = ctx.evaluate_log_det(x, 5)
    ctx.f.log_det(x)
    assert np.array_equal(first, ctx.evaluate_log_det(x, 5))
    assert not np.array_equal(first, ctx.evaluate_log_det(x, 6))


def test_a_keyword_seed_gets_a_fresh_integer_each_call():
    seeds = []

    def log_det(x, *, seed):
        seeds.append(seed)
        return 0.0

    ctx = context(make(log_det=log_det))
    ctx.f.log_det(ctx.inputs(2))
    seeds.clear()  # of the calls that find out whether one seed gives one value
    for _ in range(4):
        ctx.f.log_det(ctx.inputs(2))
    ctx.evaluate_log_det(ctx.inputs(2), 17)
    assert all(isinstance(s, int) for s in seeds)
    assert len(set(seeds)) == len(seeds) == 5
    assert seeds[-1] == 17


def test_seeds_depend_on_the_check_and_the_mode_and_not_on_the_order():
    assert len({derived_seed(s, c, m) for s in (0, 1) for c in ("a", "b") for m in (None, "train", "eval")}) == 12
    x = [context(make(), check_id=c).inputs(2) for c in ("a.b", "a.c", "a.b")]
    assert np.array_equal(x[0], x[2])
    assert not np.array_equal(x[0], x[1])


def test_warnings_of_a_subject_are_not_our_errors():
    def forward(x):
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        return linear(x)

    ctx = context(make(forward))
    assert ctx.f.forward(ctx.inputs(2)).shape == (2, 3)


def test_conditioning_is_one_event_for_all_rows_unless_given():
    ctx = context(make(lambda x, c: x + c, context_shape=(3,)))
    x = ctx.inputs(4)
    shift = ctx.f.forward(x) - x
    assert np.ptp(shift, axis=0).max() < 1e-14
    rows = np.arange(12.0).reshape(4, 3)
    assert np.array_equal(ctx.f.forward(x, context=rows), x + rows)


def test_default_inputs_come_at_three_scales_in_the_subjects_dtype():
    ctx = context(make(dtype="float32"))
    x = ctx.inputs(3000)
    assert x.dtype == np.float32
    for i, scale in enumerate((0.1, 1.0, 3.0)):
        assert abs(x[i::3].std() / scale - 1) < 6 / math.sqrt(2 * 3000)  # 6 standard errors of 3,000 numbers


def test_forward_tolerance_covers_rounding_and_is_not_loose():
    ctx = context(make())
    x = ctx.inputs(30)
    exact = x.astype(np.longdouble) @ A.T.astype(np.longdouble)
    y = ctx.f.forward(x)
    tolerance = ctx.forward_tolerance(x, y)
    assert (np.linalg.norm((y - exact).astype(float), axis=1) <= tolerance).all()
    assert (tolerance <= 1e-13 * (1 + np.linalg.norm(x, axis=1))).all()


def test_forward_tolerance_sees_cancellation_inside_and_not_noise():
    def cancelling(x):
        return (x + 1e6) - 1e6

    ctx = context(make(cancelling))
    x = ctx.inputs(30)
    y = ctx.f.forward(x)
    assert (np.linalg.norm(y - x, axis=1) <= ctx.forward_tolerance(x, y)).all()
    noisy = context(make(lambda x: x + 0.1 * torch.randn(3, dtype=x.dtype)))
    assert (noisy.forward_tolerance(x, x) <= 1e-12 * (1 + np.linalg.norm(x, axis=1))).all()


def test_log_det_claims_follow_the_mode():
    module = torch.nn.Linear(3, 3).double()
    claims = {"train": "unbiased", "eval": 0.25}
    subject = make(log_det=lambda x: 0.0, module=module, log_det_is=claims)
    assert context(subject, "train").log_det_claim == ("unbiased", 0.0)
    assert context(subject, "eval").log_det_claim == ("bias", 0.25)
    gradient_only = make(log_det=lambda x: 0.0, log_det_is="gradient-only")
    assert context(gradient_only).log_det_claim == ("gradient-only", math.inf)


@pytest.mark.parametrize(("framework", "dtype"), [
    ("torch", "float64"), ("torch", "float32"), ("torch:cpu", "float64"), ("numpy", "float64"), ("numpy", "float32"),
    ("array-api-strict", "float64"), ("array-api-strict", "float32"),
])
def test_the_same_affine_map_reads_alike_in_every_framework(framework, dtype):
    pytest.importorskip(framework.split(":")[0].replace("-", "_"))

    def forward(x):
        return 2 * x + 1, x[:, 0] * 0 + 3 * math.log(2)

    ctx = context(make(forward, framework=framework, dtype=dtype))
    x = ctx.inputs(5)
    assert ctx.conventions.formats["forward"] == "(y, log_det)"
    assert ctx.f.forward(x).dtype == np.dtype(dtype)
    assert np.array_equal(ctx.f.forward(x), (2 * x + 1).astype(dtype))
    value, error, _ = ctx.log_det_truth(x)
    assert (np.abs(ctx.f.log_det(x) - value) <= error).all()


# -- putting things back

def test_module_state_is_restored_bit_for_bit():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(3))
            self.frozen = torch.nn.Parameter(torch.randn(3), requires_grad=False)
            self.register_buffer("u", torch.tensor([1.0, float("nan")]))
            self.ready = False
            self.cache = torch.zeros(2)
            self.last = None

    layer = torch.nn.Sequential(Layer(), torch.nn.Dropout())
    inner = layer[0]
    inner.weight.grad = torch.ones(3)
    layer.eval()
    objects = (inner.weight, inner.u, inner.cache, inner.weight.grad)
    bits = [t.detach().clone() for t in objects]
    state = ModuleState(layer)
    assert state.changes() == []
    with preserved(layer):
        with torch.no_grad():
            inner.weight.add_(1)
        inner.frozen.requires_grad_(True)
        inner.weight.grad.zero_()
        inner.u = torch.zeros(2)
        inner.u.data = torch.zeros(5)
        inner.ready, inner.last = True, (torch.ones(1), torch.ones(1))
        inner.cache = torch.ones(4)
        inner.extra = 3
        layer.train()
        layer.double()
        inner.weight = torch.nn.Parameter(torch.zeros(7))
        assert len(state.changes()) >= 8
    assert state.changes() == []
    assert all(a is b for a, b in zip(objects, (inner.weight, inner.u, inner.cache, inner.weight.grad), strict=True))
    now = [t.detach() for t in objects]
    assert all(torch.equal(torch.nan_to_num(a, 9.0), torch.nan_to_num(b, 9.0)) for a, b in zip(bits, now, strict=True))
    assert not hasattr(inner, "extra")
    assert (inner.ready, inner.last, layer.training, inner.training) == (False, None, False, False)
    assert not inner.frozen.requires_grad


@pytest.mark.parametrize("framework", [NumpyFramework("float64"), TorchFramework("float64")])
def test_global_state_is_compared_and_restored(framework):
    before = framework.snapshot_globals()
    assert changed_globals(before, framework.snapshot_globals()) == []
    random.random()
    np.random.rand()  # noqa: NPY002 - the generator a subject may disturb
    changed = ["numpy.random", "random"]
    if framework.name == "torch":
        torch.rand(1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        changed += ["torch.default_dtype", "torch.grad_enabled", "torch.random"]
    try:
        assert changed_globals(before, framework.snapshot_globals()) == sorted(changed)
    finally:
        framework.restore_globals(before)
    assert changed_globals(before, framework.snapshot_globals()) == []


# -- validation

FAULTS = {
    "name": ({"name": " "}, "name: expected a non-empty string"),
    "d=0": ({"event_shape": (0,)}, r"event_shape: expected every axis at least 1 .* got \(0,\); try"),
    "list shape": ({"event_shape": [3]}, r"event_shape: expected a tuple of integers .* got \[3\]; try"),
    "other d=0": ({"other_shapes": ((2, 0),)}, "other_shapes: expected every axis at least 1"),
    "forward": ({"forward": None}, "forward: expected a callable, got None; try"),
    "inverse": ({"inverse": 3}, "inverse: expected a callable, got 3; try"),
    "L=1": ({"lipschitz": 1.0}, r"lipschitz: expected a bound on Lip\(g\) in \[0, 1\).* got 1.0; try lipschitz=0.97"),
    "L=nan": ({"lipschitz": math.nan}, "lipschitz: expected"),
    "L=-1": ({"lipschitz": -1}, "lipschitz: expected"),
    "holds": ({"lipschitz_holds": "later"}, "lipschitz_holds: expected one of"),
    "no refresh": ({"lipschitz_holds": "after-refresh"}, "refresh: expected a callable"),
    "tolerance": ({"inverse_tolerance": 0.0}, "inverse_tolerance: expected a positive number"),
    "accuracy": ({"accuracy": math.inf}, "accuracy: expected a positive number"),
    "claim": ({"log_det_is": "roughly"}, "log_det_is: expected one of .* got 'roughly'; try 'exact'"),
    "claim < 0": ({"log_det_is": -1.0}, "log_det_is: expected"),
    "claim mode": ({"log_det_is": {"test": "exact"}}, "log_det_is: expected modes 'train' and 'eval' as keys"),
    "claim without module": ({"log_det_is": {"train": "unbiased", "eval": "exact"}}, "log_det_is: expected one claim"),
    "claim missing": ({"log_det_is": {"train": "exact"}, "module": torch.nn.Identity()}, "a claim for each of modes"),
    "modes": ({"modes": ("training",)}, "modes: expected a non-empty tuple of 'train' and 'eval'"),
    "no modes": ({"modes": ()}, "modes: expected"),
    "dtype": ({"dtype": "int32"}, "dtype: expected one of .* got 'int32'; try"),
    "framework": ({"framework": "caffe"}, "framework.*caffe.*try"),
    "device": ({"device": "cuda:99"}, "expected a usable torch device, got device='cuda:99' .*try device='cpu'"),
    "numpy device": ({"framework": "numpy", "device": "cuda"}, "expected a dtype and device of NumPy"),
    "failures": ({"expected_failures": {"inverse.x": ""}}, "expected_failures: expected {check id: reason}"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_bad_field_is_one_subject_error_that_names_it(fault):
    fields, message = FAULTS[fault]
    with pytest.raises(SubjectError, match=message) as caught:
        Prepared(make(**fields))
    assert "try " in str(caught.value)


def test_what_is_no_subject_is_said_to_be_none():
    with pytest.raises(SubjectError, match="expected a Subject, got dict; try Subject"):
        validate({"name": "x"})
