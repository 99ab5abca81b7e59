"""The Jacobian oracle and the log-det truth, on maps whose Jacobians are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from iresnet_verify import Subject
from iresnet_verify.check.budget import BUDGETS
from iresnet_verify.check.context import Context
from iresnet_verify.oracle.derivative_methods import derivative_methods
from iresnet_verify.oracle.finite_differences import derivative, full_jacobian
from iresnet_verify.oracle.jacobian import Jacobian, Oracle
from iresnet_verify.oracle.log_determinant import log_det_truth
from iresnet_verify.oracle.singular_values import LARGE
from iresnet_verify.running.run import Prepared
from iresnet_verify.subject.errors import Undecided

U = 2.0**-53
A = np.array([[1.3, 0.4, -0.2], [0.1, 0.8, 0.5], [-0.6, 0.3, 1.1]])


def context(subject: Subject, mode: str | None = None, seed: int = 0) -> Context:
    prepared = Prepared(subject, seed)
    conventions = prepared.conventions(mode)
    assert not conventions.broken
    return Context(subject, "logdet.test", mode, seed, BUDGETS["quick"], 1e-6, prepared.framework, conventions)


def torch_subject(forward, dtype="float64", **fields):
    return Subject(name="t", event_shape=(3,), forward=forward, dtype=dtype, **fields)


def linear(x):
    return x @ torch.tensor(A.T, dtype=x.dtype)


def quadratic(x):
    return linear(x) + 0.1 * x.flip(-1) ** 2


def quadratic_jacobian(x):
    # d/dx_j (0.1 x_{d-1-i}^2) = 0.2 x_j [j = d-1-i]
    return A + 0.2 * x[:, ::-1, None] * np.eye(3)[::-1]


def test_the_jacobian_of_a_linear_map_is_its_matrix_within_the_bound():
    ctx = context(torch_subject(linear))
    J = ctx.jacobian(ctx.inputs(7))
    assert J.source == "rows of F by autograd"
    gap = np.linalg.norm(J.matrix - A, 2, axis=(1, 2))
    assert (gap <= J.error).all()
    assert (J.error <= 1000 * U * np.sqrt(3) * 2).all()  # a bound nobody could use is no bound


def test_rows_are_outputs_and_columns_are_inputs():
    ctx = context(torch_subject(quadratic))
    x = ctx.inputs(6)
    J = ctx.jacobian(x)
    assert (np.linalg.norm(J.matrix - quadratic_jacobian(x), 2, axis=(1, 2)) <= J.error).all()


def test_g_is_preferred_and_keeps_a_tiny_residual_jacobian_exact():
    # J_g = 1e-12·A: from F its relative error would be u/1e-12, from g it is u
    g = lambda x: 1e-12 * linear(x)  # noqa: E731 - a residual in one line
    ctx = context(torch_subject(lambda x: x + g(x), residual=g))
    J = ctx.residual_jacobian(ctx.inputs(4))
    assert J.source == "rows of g by autograd"
    assert (np.linalg.norm(J.matrix - 1e-12 * A, 2, axis=(1, 2)) <= J.error).all()
    assert (J.error <= 1e-12 * 1000 * U * 4).all()


class OnlyBackward(torch.autograd.Function):
    """Like memory-efficient blocks: the graph answers `.backward()` once and refuses `autograd.grad`."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.used = False
        return quadratic(x)

    @staticmethod
    def backward(ctx, gradient):
        if ctx.used:
            raise RuntimeError("the input was freed by the first backward pass")
        ctx.used = True
        (x,) = ctx.saved_tensors
        return gradient @ torch.tensor(A) + (gradient.flip(-1) * 0.2 * x)


def test_a_layer_that_answers_only_backward_is_differentiated_by_backward():
    ctx = context(torch_subject(OnlyBackward.apply))
    x = ctx.inputs(5)
    J = ctx.jacobian(x)
    assert J.source.startswith("rows by .backward()")
    assert "rows of F by autograd: RuntimeError" in J.source
    assert (np.linalg.norm(J.matrix - quadratic_jacobian(x), 2, axis=(1, 2)) <= J.error).all()


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return linear(x)

    @staticmethod
    def backward(ctx, gradient):
        return 1.01 * gradient @ torch.tensor(A)


def test_a_wrong_backward_is_caught_by_the_directional_difference():
    ctx = context(torch_subject(WrongBackward.apply))
    J = ctx.jacobian(ctx.inputs(5))
    assert J.source.startswith("Richardson differences")
    assert "disagrees with a directional difference" in J.source
    assert (np.linalg.norm(J.matrix - A, 2, axis=(1, 2)) <= J.error).all()


def test_a_residual_that_is_not_the_residual_is_not_believed():
    ctx = context(torch_subject(quadratic, residual=lambda x: 0.5 * quadratic(x)))
    x = ctx.inputs(5)
    J = ctx.jacobian(x)
    assert J.source.startswith("rows of F by autograd")
    assert (np.linalg.norm(J.matrix - quadratic_jacobian(x), 2, axis=(1, 2)) <= J.error).all()


def test_a_detached_forward_falls_back_to_differences():
    ctx = context(torch_subject(lambda x: quadratic(x.detach())))
    x = ctx.inputs(5)
    J = ctx.jacobian(x)
    assert J.source.startswith("Richardson differences")
    assert (np.linalg.norm(J.matrix - quadratic_jacobian(x), 2, axis=(1, 2)) <= J.error).all()


def test_autograd_is_on_even_inside_no_grad_and_inference_mode():
    def forward(x):
        with torch.enable_grad():
            if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
                raise RuntimeError("needs autograd")
        assert torch.is_grad_enabled()
        return linear(x)

    ctx = context(torch_subject(forward))
    for surroundings in (torch.no_grad(), torch.inference_mode()):
        with surroundings:
            J = ctx.jacobian(ctx.inputs(3))
        assert J.source == "rows of F by autograd"


@pytest.mark.parametrize(("dtype", "u"), [("float64", U), ("float32", 2.0**-24)])
def test_numpy_subjects_are_differentiated_by_richardson(dtype, u):
    def forward(x):
        return np.tanh(x) @ A.T.astype(dtype) + x

    ctx = context(Subject(name="n", event_shape=(3,), forward=forward, framework="numpy", dtype=dtype))
    x = ctx.inputs(9)
    truth = np.eye(3) + A * (1 - np.tanh(x.astype(float))[:, None, :] ** 2)
    J = ctx.jacobian(x)
    assert J.source == "Richardson differences"
    assert J.matrix.dtype == np.float64
    assert (np.linalg.norm(J.matrix - truth, 2, axis=(1, 2)) <= J.error).all()
    assert (J.error <= 128 * u ** (2 / 3)).all()  # 64 more than plain central differences: a bound of practical use


def test_the_error_of_differences_bounds_the_truth_for_curved_functions():
    rng = np.random.default_rng(0)
    for scale in (0.1, 1.0, 10.0):
        x = scale * rng.standard_normal((40, 4))
        J, error = full_jacobian(lambda z: np.sin(3 * z) + np.exp(-z[:, ::-1] ** 2), x, 8 * U, U)
        truth = 3 * np.cos(3 * x)[:, :, None] * np.eye(4)
        truth += (-2 * x[:, ::-1] * np.exp(-x[:, ::-1] ** 2))[:, :, None] * np.eye(4)[::-1]
        assert (np.linalg.norm(J - truth, 2, axis=(1, 2)) <= error).all()
        assert (error <= 1e3 * U**0.75).all()


@pytest.mark.parametrize("together", [False, True])
def test_far_from_the_origin_secants_of_an_oscillation_are_not_taken_for_its_derivative(together):
    """Steps are a share of ‖x‖: at 1e6 the first span thousands of periods, and their secants agree on the slope 1."""
    rng = np.random.default_rng(0)
    for scale in (1e2, 1e4, 1e6, 1e9):
        x, v = scale * rng.standard_normal((20, 3)), rng.standard_normal((20, 3))
        D, error = derivative(lambda z: z + 0.1 * np.sin(8 * z), x, v, 8 * U, U, together=together)
        gap = np.linalg.norm(D - (1 + 0.8 * np.cos(8 * x)) * v, axis=1)
        assert (gap <= error + 8 * U * scale).all()  # sin(8x) is that of a rounded 8x
        assert (error <= 1e-4 * max(1.0, scale / 1e6)).all()


def test_in_single_precision_far_out_the_error_says_that_nothing_is_known():
    rng = np.random.default_rng(0)
    for scale in (1.0, 1e2, 1e4, 1e6):
        x, v = (scale * rng.standard_normal((20, 3))).astype(np.float32).astype(np.float64), rng.standard_normal((20, 3))
        D, error = derivative(lambda z: (z := z.astype(np.float32)) + np.float32(0.1) * np.sin(8 * z), x, v, 2.0**-21, 2.0**-24)
        gap = np.linalg.norm(D - (1 + 0.8 * np.cos(8 * x)) * v, axis=1)
        assert (gap <= error).all()
        assert (error <= 2e-3 * max(1.0, scale) * np.linalg.norm(v, axis=1).max()).all()


def test_steps_at_points_beyond_all_numbers_end():
    for x in (np.full((1, 2), 1e300), np.full((1, 2), np.inf), np.full((1, 2), np.nan)):
        derivative(lambda z: z, x, np.ones((1, 2)), 8 * U, U)


def test_steps_outside_the_domain_are_left_out():
    def f(z):
        if (z <= 0).any():
            raise ValueError("log of a negative number")
        return np.log(z)

    x = np.full((2, 1), 1e-2)  # the first steps of 2^-5 leave the domain
    D, error = derivative(f, x, np.ones((2, 1)), 8 * U, U)
    assert np.allclose(D, 100.0, atol=float(error.max()), rtol=0)
    assert (error < 1e-3).all()


def test_a_row_on_a_kink_gets_a_large_error_not_a_wrong_number():
    def forward(x):
        return linear(x) + 0.5 * torch.relu(x)

    ctx = context(torch_subject(forward))
    x = ctx.inputs(9)
    x[4, 1] = 0.0
    J = ctx.jacobian(x)
    smooth = np.delete(np.arange(9), 4)
    assert J.source.startswith("rows of F by autograd")
    assert (J.error[smooth] < 1e-9).all()
    assert J.error[4] > 0.1  # the true one-sided Jacobians differ by 0.5


def test_rows_that_depend_on_each_other_have_no_jacobian():
    ctx = context(torch_subject(lambda x: linear(x) + x.mean(0, keepdim=True) ** 2))
    with pytest.raises(Undecided, match="rows may depend on each other"):
        ctx.jacobian(ctx.inputs(4))


def test_a_float32_subject_with_fresh_is_differentiated_in_float64():
    def build(dtype=None, device=None):
        torch.manual_seed(5)  # other parameters than the audited module's: the twin must take them over
        module = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        module = module.to(getattr(torch, dtype or "float32"))
        return torch_subject(lambda x: x + 0.1 * module(x), dtype or "float32", module=module, fresh=build)

    subject = build()
    with torch.no_grad():
        for p in subject.module.parameters():
            p.add_(0.1)
    x = context(subject).inputs(5)
    J = context(subject, "eval").jacobian(x)
    assert J.source.endswith("of fresh(dtype='float64')")
    W1, b1, W2, _ = (p.detach().double().numpy() for p in subject.module.parameters())
    slope = 1 - np.tanh(x.astype(float) @ W1.T + b1) ** 2
    truth = np.eye(3) + 0.1 * np.einsum("ih,nh,hj->nij", W2, slope, W1)
    assert np.linalg.norm(J.matrix - truth, 2, axis=(1, 2)).max() < 1e-13
    assert J.error.min() > 2.0**-24  # still allows what float32 cannot avoid


def test_a_twin_that_is_another_function_is_not_used():
    other = torch_subject(lambda x: 2 * x, "float64")
    subject = torch_subject(linear, "float32", fresh=lambda dtype=None, device=None: other)
    J = context(subject).jacobian(context(subject).inputs(3))
    assert "fresh" not in J.source
    assert (np.linalg.norm(J.matrix - A, 2, axis=(1, 2)) <= J.error).all()


def test_power_iteration_in_training_mode_does_not_move_f_under_the_oracle():
    torch.manual_seed(0)
    module = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(3, 3).double())
    ctx = context(torch_subject(lambda x: x + 0.5 * module(x), module=module), "train")
    module.train()
    assert ctx.conventions.changes_state
    x = ctx.inputs(4)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    first, second = ctx.jacobian(x), ctx.jacobian(x)
    assert np.array_equal(first.matrix, second.matrix)
    assert np.array_equal(ctx.f.forward(x), ctx.f.forward(x))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_gradients_of_the_module_are_not_left_behind():
    module = torch.nn.Linear(3, 3).double()

    class Free(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            ctx.used = False
            return x + 0.1 * x @ w.T

        @staticmethod
        def backward(ctx, t):
            if ctx.used:
                raise RuntimeError("freed")
            ctx.used = True
            x, w = ctx.saved_tensors
            return t + 0.1 * t @ w, 0.1 * t.T @ x

    ctx = context(torch_subject(lambda x: Free.apply(x, module.weight), module=module), "eval")
    assert ctx.jacobian(ctx.inputs(3)).source.startswith("rows by .backward()")
    assert module.weight.grad is None


def test_log_det_truth_is_the_determinant_and_its_error_bounds_a_perturbation():
    rng = np.random.default_rng(1)
    J = np.eye(4) + 0.3 * rng.standard_normal((50, 4, 4))
    E = rng.standard_normal((50, 4, 4))
    E *= 1e-6 / np.linalg.norm(E, 2, axis=(1, 2))[:, None, None]
    value, error, source = log_det_truth(Jacobian(J + E, "test", np.full(50, 1e-6), J), U)
    assert "test" in source
    exact = np.log(np.abs(np.linalg.det(J)))
    assert (np.abs(value - exact) <= error).all()
    smallest = np.linalg.svd(J, compute_uv=False)[:, -1]
    assert (error <= 2 * 4 * 1e-6 / smallest).all()  # d·‖J⁻¹‖·‖δJ‖, not more than doubled


def test_a_possibly_singular_row_has_infinite_error():
    J = np.diag([1.0, 1e-9])[None]
    _, error, _ = log_det_truth(Jacobian(J, "test", np.array([1e-8]), J), U)
    assert np.isinf(error).all()


def test_the_truth_of_an_empty_batch_is_empty():
    ctx = context(torch_subject(linear))
    value, error, _ = ctx.log_det_truth(np.zeros((0, 3)))
    assert value.shape == error.shape == (0,)


WIDE = np.random.default_rng(5).standard_normal((20, 20)) / 9.0


class OneRowOnly(torch.autograd.Function):
    """A layer whose backward goes wrong, in silence, where it is given a batch of cotangents."""

    @staticmethod
    def forward(ctx, x):
        return x @ torch.tensor(WIDE.T)

    @staticmethod
    def backward(ctx, gradient):
        batched = torch._C._functorch.is_legacy_batchedtensor(gradient)
        return (2.0 if batched else 1.0) * gradient @ torch.tensor(WIDE)


@pytest.mark.parametrize(("forward", "batched"), [(lambda x: x @ torch.tensor(WIDE.T), True), (OneRowOnly.apply, False)])
def test_rows_at_once_are_believed_only_where_an_ordinary_pass_confirms_them(forward, batched):
    ctx = context(Subject(name="t", event_shape=(20,), forward=forward))
    J = ctx.jacobian(ctx.inputs(5))
    assert J.source == "rows of F by autograd"
    assert ctx.caller.batched_cotangents == batched
    assert (np.linalg.norm(J.matrix - WIDE, 2, axis=(1, 2)) <= J.error).all()


def test_draws_that_depend_on_the_batch_are_differentiated_in_batches_of_their_own():
    ctx = context(torch_subject(lambda x: linear(x * (1 + 0.1 * torch.randn_like(x)))))
    J = ctx.jacobian(ctx.inputs(4))
    assert J.source == "rows of F by autograd"
    assert not ctx.caller.rows_independent
    assert (J.error <= 1000 * U * np.sqrt(3) * 2).all()


def test_above_large_the_change_of_j_is_estimated_from_above_by_products():
    d = LARGE + 2
    ctx = context(Subject(name="t", event_shape=(d,), forward=lambda x: x + 1e-6 * torch.sin(1e6 * x)))
    x = ctx.inputs(6)
    oracle = Oracle(ctx.caller, ctx.f.forward, ctx.u, 0.0, ctx.guard)
    method = derivative_methods(ctx.caller, ctx.guard, 7)[0]
    exact, estimated = (oracle._with_change(replace(method, products=p), x, False)[1] for p in (None, method.products))
    assert (exact > 1e-11).all()
    assert (estimated >= exact).all()
    assert (estimated <= 4 * exact).all()


def test_steps_together_and_one_by_one_give_one_derivative_and_stop_where_rounding_takes_over():
    rows = []

    def f(x):
        rows.append(len(x))
        return np.sin(x @ A.T)

    x, v = np.random.default_rng(1).standard_normal((2, 7, 3))
    exact = np.cos(x @ A.T) * (v @ A.T)
    for together, most in ((False, 16), (True, 2)):
        rows.clear()
        D, error = derivative(f, x, v, 8 * U, U, together=together)
        assert len(rows) < most or together
        assert len(rows) <= most
        assert (np.linalg.norm(D - exact, axis=1) <= error).all()
        assert (error <= 1e-9).all()


@pytest.mark.parametrize(("reach", "right"), [(0.0, False), (0.01, True)])
def test_steps_at_which_f_raises_are_left_out(reach: float, right: bool):
    """Raising everywhere but at x, then but near it: no Jacobian, then the right one."""
    x = np.zeros((2, 3))

    def within(z):
        if np.abs(z).max() > reach:
            raise IndexError("no bin holds this point")
        return z @ A.T + (z**2) @ A

    J, error = full_jacobian(within, x, U, U)
    assert J.shape == (2, 3, 3)
    assert (np.isfinite(error) == right).all()
    assert (np.linalg.norm(J - A, axis=(1, 2)) <= error).all() if right else np.isnan(J).all()
