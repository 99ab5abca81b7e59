"""What the tables say with which certainty: accuracies, paired differences of two classifiers, areas under ROC curves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Percent, with the interval in brackets."""
        return f"{100 * self.value:.2f} % [{100 * self.low:.2f}, {100 * self.high:.2f}]"

    @property
    def plain(self) -> str:
        """Three decimals, with the interval in brackets."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def proportion(right: Flags) -> Interval:
    """The share of rows that are right, with Wilson's interval: it takes rows for independent."""
    from scipy.stats import binomtest

    found = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return Interval(float(right.mean()), float(found.low), float(found.high))


def paired_difference(ours: Flags, theirs: Flags) -> tuple[Interval, float]:
    """(accuracy of ours − of theirs on the same rows, the exact McNemar test's p-value).

    Only the k rows on which one of the two is right say anything. Given k, those that ours has right are Binomial(k, p), and
    the difference is (2p − 1)k/n: Clopper's and Pearson's interval of p is carried over, and p = 1/2 is tested.
    """
    from scipy.stats import binomtest

    won, lost, n = int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), len(ours)
    k = won + lost
    if k == 0:
        return Interval(0.0, 0.0, 0.0), 1.0
    test = binomtest(won, k)
    ends = test.proportion_ci(method="exact")
    low, high = ((2.0 * float(p) - 1.0) * k / n for p in (ends.low, ends.high))
    return Interval((won - lost) / n, low, high), float(test.pvalue)


def mean(values: Scores) -> Interval:
    """The mean, with Student's interval: of differences of pairs it is the paired one."""
    from scipy.stats import t

    middle, n = float(np.mean(values)), len(values)
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else math.inf
    return Interval(middle, middle - half, middle + half)


def area_under_roc(inside: Scores, outside: Scores) -> Interval:
    """P(score of a row inside > of one outside) + half the ties, with Newcombe's score interval.

    The variance is Hanley's and McNeil's, θ(1 − θ)(1 + N((1 − θ)/(2 − θ) + θ/(1 + θ)))/(mn) with N = (m + n)/2 − 1, taken at
    the end θ of the interval and not at the estimate, so that it is no point at 0 and 1 (Newcombe, *Confidence intervals for
    an effect size measure based on the Mann–Whitney statistic, Part 2*, Statistics in Medicine 25, 2006, method 5).
    """
    from scipy.optimize import brentq
    from scipy.stats import mannwhitneyu, norm

    m, n = len(inside), len(outside)
    area = float(mannwhitneyu(inside, outside).statistic) / (m * n)
    z = float(norm.ppf(0.975))

    def excess(t: float) -> float:
        spread = 1.0 + ((m + n) / 2.0 - 1.0) * ((1.0 - t) / (2.0 - t) + t / (1.0 + t))
        return abs(area - t) - z * math.sqrt(t * (1.0 - t) * spread / (m * n))

    tiny = 1e-12
    low = 0.0 if area <= tiny else float(brentq(excess, tiny, min(area, 1.0 - tiny)))
    high = 1.0 if area >= 1.0 - tiny else float(brentq(excess, max(area, tiny), 1.0 - tiny))
    return Interval(area, low, high)
