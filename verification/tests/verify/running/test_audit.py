"""The in-process audit: what is planned, how alpha is spent, what is put back, and what an exception becomes."""

from __future__ import annotations

import random
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from iresnet_verify import Report, Subject, audit, catalogue
from iresnet_verify.check.budget import BUDGETS
from iresnet_verify.check.outcome import Outcome
from iresnet_verify.check.registry import CATALOGUE, Check
from iresnet_verify.running.plan import plan
from iresnet_verify.running.run import Prepared, plan_audit, run_check
from iresnet_verify.subject.errors import SubjectError, Undecided
from iresnet_verify.subject.frameworks import changed_globals, framework_of
from iresnet_verify.subject.module_state import ModuleState

A = np.array([[1.3, 0.4, -0.2], [0.1, 0.8, 0.5], [-0.6, 0.3, 1.1]])
LOG_DET = float(np.linalg.slogdet(A)[1])


def linear(x):
    return x @ torch.tensor(A.T, dtype=x.dtype)


def make(forward=linear, **fields):
    return Subject(**{"name": "t", "event_shape": (3,), "forward": forward, **fields})


def with_module(**fields):
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).double()
    return make(lambda x: x + 0.1 * module[0](x), module=module, **fields)


def a_check(run, id="hygiene.test", **options):
    options = {"needs": (), "modes": True, "statistical": False, **options}
    return Check(id, "a claim", "a reference", "proof", run, **options)


def passed(ctx):
    return Outcome("passed")


@contextmanager
def only(monkeypatch, *checks):
    """A catalogue of these checks alone."""
    monkeypatch.setattr(catalogue, "load", lambda: {c.id: c for c in checks})
    yield


# -- the unit: one check in all its modes

def test_the_worst_mode_decides_and_all_modes_are_named():
    def run(ctx):
        return Outcome("failed" if ctx.mode == "train" else "passed", f"in {ctx.mode}", {"a": 1})

    result = run_check(with_module(), a_check(run))
    assert (result.status, result.mode, result.message) == ("failed", "train", "in train")
    assert result.evidence == {"a": 1, "modes": "train: failed, eval: passed"}


@pytest.mark.parametrize(("statuses", "worst"), [
    (("passed", "skipped"), "passed"), (("inconclusive", "passed"), "inconclusive"),
    (("inconclusive", "error"), "error"), (("failed", "error"), "failed"), (("skipped", "skipped"), "skipped"),
])
def test_the_worse_of_two_modes_is_reported(statuses, worst):
    by_mode = dict(zip(("train", "eval"), statuses, strict=True))
    assert run_check(with_module(), a_check(lambda ctx: Outcome(by_mode[ctx.mode]))).status == worst


def test_modes_are_applied_to_the_module_and_a_check_without_modes_runs_in_the_last():
    seen = []
    subject = with_module()

    def run(ctx):
        seen.append((ctx.mode, subject.module.training, subject.module[1].training))
        return Outcome("passed")

    run_check(subject, a_check(run))
    run_check(subject, a_check(run, modes=False))
    run_check(make(), a_check(lambda ctx: seen.append(ctx.mode) or Outcome("passed")))
    assert seen == [("train", True, True), ("eval", False, False), ("eval", False, False), None]


def test_an_exception_is_an_error_that_names_itself_and_its_place():
    def run(ctx):
        raise ValueError("first line\nsecond line")

    result = run_check(make(), a_check(run))
    assert result.status == "error"
    assert result.message.startswith("ValueError: first line (test_audit.py:")
    assert "second" not in result.message
    assert result.evidence["exception"] == "ValueError"


def test_leaving_the_program_is_an_error_and_an_interrupt_is_not_swallowed():
    assert run_check(make(), a_check(lambda ctx: sys.exit(0))).status == "error"

    def interrupt(ctx):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_check(make(), a_check(interrupt))


def test_what_the_oracle_cannot_decide_is_inconclusive():
    def run(ctx):
        raise Undecided("no Jacobian")

    result = run_check(make(), a_check(run))
    assert (result.status, result.message) == ("inconclusive", "no Jacobian")


def test_a_subject_that_prints_is_kept_quiet_and_counted(capsys):
    def forward(x):
        print("hello")
        print("oh", file=sys.stderr)
        return linear(x)

    result = run_check(make(forward), a_check(lambda ctx: Outcome("passed", str(ctx.f.forward(ctx.inputs(2)).shape))))
    assert (result.status, result.message) == ("passed", "(2, 3)")
    printed = result.evidence["printed_characters"]
    assert printed > len("hello\noh\n")  # while its conventions are read as well
    assert printed % len("hello\noh\n") == 0
    assert capsys.readouterr() == ("", "")


def test_everything_a_check_changes_is_put_back():
    subject = with_module()
    state, framework = ModuleState(subject.module), framework_of(subject)
    before = framework.snapshot_globals()

    def run(ctx):
        with torch.no_grad():
            for p in ctx.subject.module.parameters():
                p.add_(1)
        ctx.subject.module.requires_grad_(False)
        ctx.subject.module[1](torch.ones(4, 3, dtype=torch.float64))
        torch.set_default_dtype(torch.float64)
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002 - what a subject may disturb
        raise RuntimeError("and then it fails")

    assert run_check(subject, a_check(run)).status == "error"
    assert state.changes() == []
    assert changed_globals(before, framework.snapshot_globals()) == []


def test_changes_of_one_check_or_mode_are_not_seen_by_the_next():
    subject = with_module()
    original = subject.module[0].weight.detach().clone()
    seen = []

    def run(ctx):
        seen.append(torch.equal(ctx.subject.module[0].weight, original))
        ctx.subject.module[0].weight.data.add_(1)
        return Outcome("passed")

    prepared = Prepared(subject)
    run_check(prepared, a_check(run))
    run_check(prepared, a_check(run))
    assert seen == [True] * 4


def test_results_do_not_depend_on_the_order_of_checks_or_modes():
    def run(ctx):
        return Outcome("passed", evidence={"x": float(ctx.inputs(1)[0, 0]), "t": float(torch.rand(())),
                                           "n": float(np.random.rand()), "r": random.random()})  # noqa: NPY002

    first, second = a_check(run, "hygiene.a"), a_check(run, "hygiene.b")
    subject = with_module()
    forwards = [run_check(subject, c, seed=4).evidence for c in (first, second)]
    backwards = [run_check(subject, c, seed=4).evidence for c in (second, first)]
    assert forwards == backwards[::-1]
    assert forwards[0] != forwards[1]
    assert run_check(subject, first, seed=5).evidence != forwards[0]


# -- what is skipped, and why

@pytest.mark.parametrize(("needs", "subject", "reason"), [
    ("inverse", make(), "needs inverse; the subject gives none"),
    ("log_det", make(), "needs log_det; the subject gives none"),
    ("log_det", make(lambda x: (linear(x), LOG_DET)), None),
    ("inverse_log_det", make(inverse=lambda y: (y, 0.0)), None),
    ("inverse_log_det", make(inverse=lambda y: y), "needs inverse_log_det"),
    ("other_shapes", make(), "needs other_shapes"),
    ("torch", make(), None),
    ("torch", make(lambda x: 2 * x, framework="numpy"), "needs autograd; framework numpy has none"),
    ("lipschitz", make(lipschitz=0.0), None),
])
def test_a_check_is_skipped_where_what_it_needs_is_missing(needs, subject, reason):
    result = run_check(subject, a_check(passed, needs=(needs,)))
    assert result.status == ("passed" if reason is None else "skipped")
    assert result.message.startswith(reason or "")


def test_a_broken_callable_is_one_error_and_the_rest_of_the_audit_goes_on():
    def inverse(y):
        raise NotImplementedError("see the next version")

    report = audit(make(inverse=inverse, log_det=lambda x: LOG_DET), budget="quick",
                   select=["hygiene.readable", "inverse", "logdet.matches-determinant"])
    status = {c.id: c.status for c in report.checks}
    assert status.pop("hygiene.readable") == "error"
    assert "NotImplementedError: see the next version (test_audit.py:" in report.checks[0].message
    assert status.pop("logdet.matches-determinant") == "passed"
    needing = [c for c in report.checks if "inverse" in CATALOGUE[c.id].needs]
    assert len(needing) >= 4
    assert {c.status for c in needing} == {"skipped"}
    assert {c.because_of for c in needing} == {"hygiene.readable"}
    assert all("NotImplementedError: see the next version" in c.message for c in needing), "said where hygiene.readable is not selected too"
    assert report.status == "error"


@pytest.mark.parametrize("forward", [
    lambda x: x.T, lambda x: x.sum(), lambda x: None, lambda x: x.numpy(), lambda x: 1 / 0, lambda x: sys.exit(1),
])
def test_nonsense_ends_in_a_report_with_one_error(forward):
    report = audit(make(forward), budget="quick")
    found = [c.status for c in report.checks]
    assert found[0] == report.status == "error"
    assert set(found[1:]) == {"skipped"}


def test_non_finite_inputs_of_the_subjects_own_are_one_error():
    report = audit(make(inputs=lambda n, rng: np.full((n, 3), np.inf)), budget="quick")
    assert report.status == "error"
    assert [c.id for c in report.checks if c.status == "error"] == ["hygiene.readable"]
    assert "inputs: expected finite floats" in report.checks[0].message


# -- the plan

def test_alpha_is_split_over_planned_statistical_checks_and_modes(monkeypatch):
    checks = [a_check(passed, "logdet.a", statistical=True), a_check(passed, "logdet.b"),
              a_check(passed, "logdet.c", statistical=True, modes=False, needs=("inverse",))]
    with only(monkeypatch, *checks):
        planned = plan(with_module(), 3e-6)
    assert [p.alpha for p in planned] == [1e-6, 0.0, 1e-6]  # two modes of a, one of c, skipped or not
    assert [p.modes for p in planned] == [("train", "eval"), ("train", "eval"), ("eval",)]
    spent = sum(p.alpha * len(p.modes) for p in planned)
    assert abs(spent - 3e-6) <= 4 * 2.0**-53 * 3e-6


def test_each_statistical_check_sees_its_share(monkeypatch):
    seen = []
    checks = [a_check(lambda ctx: seen.append((ctx.alpha, ctx.budget.name)) or Outcome("passed"), f"logdet.{i}",
                      statistical=True) for i in range(4)]
    with only(monkeypatch, *checks):
        audit(make(), alpha=0.004, budget="quick")
    assert seen == [(0.001, "quick")] * 4


def test_select_and_ignore_take_ids_families_and_patterns(monkeypatch):
    checks = [a_check(passed, id) for id in ("inverse.a", "inverse.b", "logdet.a", "hygiene.readable")]
    with only(monkeypatch, *checks):
        def ids(**options):
            return [p.check.id for p in plan_audit(Prepared(make()), "quick", 1e-6, **options)]

        assert ids() == ["hygiene.readable", "inverse.a", "inverse.b", "logdet.a"]
        assert ids(select=["inverse"]) == ids(select="inverse.*") == ["inverse.a", "inverse.b"]
        assert ids(ignore=["*.a"]) == ["hygiene.readable", "inverse.b"]
        assert ids(select=["inverse"], ignore=["inverse.b"]) == ["inverse.a"]
        with pytest.raises(SubjectError, match=r"select/ignore: expected .*'inverse.aa'; try 'inverse.a'"):
            ids(select=["inverse.aa"])
        with pytest.raises(SubjectError, match=r"got 'inv'; try 'inverse.a'"):
            ids(select=["inv"])


def test_unknown_budget_alpha_and_expected_failures_are_refused():
    with pytest.raises(ValueError, match=r"budget: expected one of .* got 'fast'; try"):
        audit(make(), budget="fast")
    with pytest.raises(ValueError, match=r"alpha: expected a probability .* got 0; try"):
        audit(make(), alpha=0)
    with pytest.raises(SubjectError, match=r"expected_failures: .*'inverse.recovers-inputs'; try 'inverse.recovers-input'"):
        audit(make(expected_failures={"inverse.recovers-inputs": "why"}))


@pytest.mark.parametrize("fields", [{"event_shape": (0,)}, {"lipschitz": 1.0}, {"framework": "caffe"}])
def test_a_subject_without_a_contract_is_refused_before_anything_runs(fields):
    called = []
    with pytest.raises(SubjectError, match="try"):
        audit(make(lambda x: called.append(x) or x, **fields))
    assert called == []


# -- the catalogue and the report

def test_the_catalogue_is_ordered_and_every_check_says_what_it_claims():
    checks = catalogue.load()
    assert set(checks) == set(CATALOGUE)
    fields = {*Subject.__dataclass_fields__, "torch", "autograd", "autodiff"}
    for check in checks.values():
        assert check.claim, check.id
        assert check.reference, check.id
        assert check.kind in ("proof", "equivalence", "search"), check.id
        assert set(check.needs) <= fields, check.id


def test_expected_failures_are_strict(monkeypatch):
    checks = [a_check(lambda ctx: Outcome("failed"), "inverse.a"), a_check(passed, "inverse.b")]
    with only(monkeypatch, *checks):
        assert audit(make()).status == "failed"
        assert audit(make(expected_failures={"inverse.a": "known"})).status == "passed"
        assert audit(make(expected_failures={"inverse.a": "known", "inverse.b": "was"})).status == "failed"


def test_results_are_reported_as_they_come(monkeypatch):
    seen = []
    with only(monkeypatch, a_check(passed, "inverse.a"), a_check(passed, "inverse.b")):
        report = audit(make(), on_result=seen.append)
    assert seen == list(report.checks)
    assert isinstance(report, Report)


def test_the_report_describes_the_subject_as_it_was_read():
    report = audit(make(lambda x: ([linear(x)], torch.full((len(x), 1), LOG_DET))), select=["hygiene.readable"])
    assert report.subject["has_log_det"] is True
    assert report.subject["conventions"] == {"forward": "([y], log_det)", "forward's log-det": "(B, 1)"}
    assert report.subject["origin"].startswith("test_audit.")
    assert report.environment["torch"] == torch.__version__
    assert not audit(make(), select=["hygiene.readable"]).subject["has_log_det"]


@pytest.mark.parametrize("framework", ["torch", "numpy", "array-api-strict"])
def test_a_correct_map_passes_in_every_framework_with_the_whole_catalogue(framework):
    pytest.importorskip(framework.replace("-", "_"))
    subject = make(lambda x: (2 * x + 1, x[:, 0] * 0 + 3 * float(np.log(2))), inverse=lambda y: (y - 1) / 2,
                   framework=framework)
    report = audit(subject, budget="quick")
    wrong = {c.id: (c.status, c.message) for c in report.checks if c.status not in ("passed", "skipped")}
    assert wrong == {}
    assert report.status == "passed"


def test_every_budget_names_itself():
    assert all(b.name == name for name, b in BUDGETS.items())
