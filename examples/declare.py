"""May a failure be declared? Only one that holds on 20 seeds: `python examples/declare.py FILE.py:FACTORY [CHECK …]`.

Audits the subject at the quick budget with seeds 0 … 19, one thread, and prints for each check that failed at least
once how often it did. A check may be declared if it failed 20 times. Exit code 0 if every check that failed once, or
every check named on the command line, did so each time.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from iresnet_verify.api import audit
from iresnet_verify.subject.loading import load, parse

SEEDS = 20


def count(spec: str, checks: list[str], budget: str, backend: str | None) -> dict[str, Counter[str]]:
    """Subject and check -> how often each status was seen. Checks that passed with seed 0 are not repeated."""
    seen: dict[str, Counter[str]] = {}
    for index in range(len(load(parse(spec, backend)))):
        select = checks or None
        for seed in range(SEEDS):
            subject = load(parse(spec, backend), seed)[index]
            report = audit(subject, seed=seed, budget=budget, select=select)
            for c in report.checks:
                seen.setdefault(f"{subject.name}: {c.id}", Counter())[c.status] += 1
            if select is None:
                select = [c.id for c in report.checks if c.status in ("failed", "error") or c.expected is not None]
            if not select:
                break
    return seen


def main() -> int:
    """Count and print; return the exit code."""
    parser = argparse.ArgumentParser(description="count on 20 seeds which checks of a subject fail")
    parser.add_argument("subject", metavar="FILE.py:FACTORY")
    parser.add_argument("checks", nargs="*", metavar="CHECK")
    parser.add_argument("--budget", choices=("quick", "standard", "thorough"), default="quick")
    parser.add_argument("--backend")
    chosen = parser.parse_args()
    always = True
    for name, statuses in count(chosen.subject, chosen.checks, chosen.budget, chosen.backend).items():
        if chosen.checks or statuses["failed"] or statuses["error"]:
            print(f"{name}: failed {statuses['failed']} of {sum(statuses.values())}", dict(statuses))
            always &= statuses["failed"] == SEEDS
    return 0 if always else 1


if __name__ == "__main__":
    try:
        import torch

        torch.set_num_threads(1)
    except ImportError:
        pass
    sys.exit(main())
