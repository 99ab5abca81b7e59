"""A check: its registry, its context, its outcome, its result."""

from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import Check, check

__all__ = ["Check", "Counterexample", "Outcome", "check"]
