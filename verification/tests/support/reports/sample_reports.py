"""Reports with every outcome, all three plots, and names that mean harm: what the writers are tried on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.outcome import Counterexample, Status
from iresnet_verify.check.registry import FAMILIES
from iresnet_verify.check.result import CheckResult

HOSTILE = "<script>alert(1)</script>"
ENVIRONMENT = {"python": "3.11.9", "numpy": "2.4.1", "torch": "2.13.0", "platform": "Linux x86_64"}


def result(id: str, status: Status, claim: str = "F⁻¹(F(x)) = x", kind: str = "search", **more: Any) -> CheckResult:
    more = {"reference": "B19, eq. (1)", **more}
    return CheckResult(id=id, family=id.partition(".")[0], status=status, claim=claim, kind=kind, **more)


def residual_curve() -> dict[str, Any]:
    x = list(range(26))
    rates = [(0.55, 2e-7), (0.71, 4e-7), (0.9, 1e-7)]
    series = {f"row {r}": [max(2.1 * q**k, floor) for k in x] for r, (q, floor) in enumerate(rates)}
    series["row 0"][22:] = [0.0] * 4
    series["row 2"][7] = math.nan
    return {"kind": "residual", "x": x, "series": series, "bound": [3 * 0.9**k for k in x]}


def error_bound_curve() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    bound = 10 ** rng.uniform(-9, -4, 80)
    error = bound * 10 ** rng.uniform(-3, 0, 80)
    error[[3, 40]] *= 60
    error[5], bound[7] = 0.0, math.inf
    return {"kind": "error-bound", "x": bound, "y": error}


def estimator_curve() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    n = np.arange(1, 20_001)
    mean = 1.37 + np.cumsum(rng.normal(0, 0.6, n.size)) / n
    width = 0.6 * np.sqrt(2 * np.log(5e6 * np.sqrt(n + 1)) / n)
    band = {"low": mean - width, "high": mean + width}
    return {"kind": "estimator", "x": n, "y": mean, **band, "truth": 1.37, "epsilon": 0.16}


def every_outcome() -> list[CheckResult]:
    return [
        result(
            "inverse.recovers-input", "failed", "‖F⁻¹(F(x)) − x‖₂ ≤ tol·max(1, ‖x‖₂) for every row x",
            message="Row 3 comes back 4.1e-03 away where `inverse_tolerance` allows 1.0e-06: raise `n_iterations`, or "
            "state the tolerance it reaches.",
            evidence={
                "largest_error": 4.127e-3, "allowed": 1e-6, "rows": 24, "rows_beyond": 7, "nan_row": math.nan,
                "scale": math.inf, "per_mode": {"train": 4.1e-3, "eval": 3.9e-3}, "evaluations": 18_240,
            },
            tolerance="1.0e-06 = `inverse_tolerance` as declared, plus 3.2e-15 = 24·u·‖x‖ for rounding",
            oracle="the planted x", reproduce="audit-reproduce/residual flow.inverse.py", seconds=1.42, mode="eval",
            reference="`Subject.inverse_tolerance`; B19, Algorithm 1",
            counterexample=Counterexample({"x": np.array([[0.125, -3.5, 2.0]]), "big": np.zeros((24, 8))}),
            curves={"Residual of the inverse": residual_curve(), "True error against the bound": error_bound_curve()},
        ),
        result(
            "logdet.matches-determinant", "passed", "|log_det(x) − log|det J_F(x)|| ≤ 8·d·u/(1−L) + d‖δJ‖/(1−L)",
            "proof", message="Largest deviation 1.1e-14.", evidence={"largest_deviation": 1.1e-14, "rows": 24},
            oracle="float64 slogdet of the Jacobian by rows of g", tolerance="1.6e-13 = 8·d·u/(1−L) at d=8, L=.9",
            seconds=0.31, mode="eval",
        ),
        result(
            "estimator.unbiased", "inconclusive", "|E[log_det(x)] − log|det J_F(x)|| ≤ τ + ε", "equivalence",
            message="The band is still wider than ε after 20,000 draws; try budget='thorough'.",
            evidence={"band": (1.33, 1.42), "epsilon": 0.16}, tolerance="ε = .02·d = .16 nats", seconds=64.8,
            mode="train", curves={"Running mean of the log-det": estimator_curve()},
        ),
        result(
            "hygiene.non-finite-input", "error", "A row with NaN never gives a finite y", mode="train", seconds=0.02,
            message="RuntimeError: the subject raised on a NaN row",
        ),
        result("state.save-load", "skipped", message="needs `fresh`, which this subject does not supply"),
        result(
            "lipschitz.claimed-bound", "failed", "‖J_g(x)‖₂ ≤ L for every x", seconds=8.9, mode="eval",
            message="Found ‖J_g‖₂ = 1.043 > L = 0.97 near x.", reproduce="audit-reproduce/lipschitz.py",
            expected="five power iterations under-estimate the norm",
            evidence={"largest": 1.043, "claimed": 0.97, "searched": "8 starts × 60 steps"},
        ),
        result(
            "lipschitz.pairs", "passed", "‖g(a) − g(b)‖₂ ≤ L‖a − b‖₂", expected="seen in an older version",
            message="Largest ratio .91.", seconds=0.11,
        ),
        result("hygiene.dtype-kept", "passed", "The dtype of F(x) is that of x", "proof", seconds=2e-4),
        result("gradient.rows-weighted", "passed", "∇θ Σᵢ wᵢ log_det(xᵢ) = its oracle, for unequal w", "proof"),
    ]


def failing() -> AuditResult:
    """Every outcome, under a hostile name."""
    subject = {
        "name": HOSTILE, "event_shape": (8,), "framework": "torch", "dtype": "float32", "device": "cpu",
        "has_log_det": True, "origin": "examples/subjects/residual_flow.py:subject",
        "claims": {"Lip(g)": 0.97, "log_det": "unbiased in train, exact in eval", "inverse tolerance": 1e-6},
        "conventions": ["`forward` returns (y, log_det); log_det (batch, 1) was flattened", f"inverse: {HOSTILE}"],
    }
    return AuditResult(subject, ENVIRONMENT, 0, 1e-6, "standard", every_outcome(), 78.4)


def passing(name: str = "RealNVP (nflows)") -> AuditResult:
    """Three checks of each family, all passed."""
    checks = [
        result(f"{f}.law-{k}", "passed", f"Law {k} of {f}: ‖a − b‖₂ ≤ 12·d·u", ("proof", "search")[k % 2], seconds=k / 20)
        for f in FAMILIES for k in range(3)
    ]
    subject = {"name": name, "event_shape": (3, 8, 8), "has_log_det": True}
    return AuditResult(subject, ENVIRONMENT, 0, 1e-6, "standard", checks, 3.2)


def undecided() -> AuditResult:
    """Nothing about the log-det came to a result."""
    checks = [result("hygiene.dtype-kept", "passed"), result("logdet.sign", "inconclusive", message="too close to 0")]
    return replace(passing("Nur vorwärts 'quoted' & \"more\""), checks=checks)


def declared() -> AuditResult:
    """One failure, declared."""
    failure = result("inverse.tolerance", "failed", expected="adaptive steps", message="7e-5 > 1e-6")
    return replace(passing("FFJORD (torchflows)"), checks=[*passing().checks[3:], failure])


def gallery() -> list[AuditResult]:
    """One report of each status but error."""
    return [failing(), passing(), undecided(), declared()]
