"""What every audit needs, done once in the process that workers are forked from.

Libraries import much at their first use: an audit of a NumPy network takes 1.5 s in a process that has only imported the worker, and
.2 s in one that has audited before; with torch it is 3 s more. So this module, imported, audits a network of its own, F(x) = 3x/2; but only
where `PREPARE` is set in the environment.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from contextlib import suppress

import numpy as np

from iresnet_verify.running.run import Prepared, plan_audit, run_check
from iresnet_verify.subject.subject import Subject

PREPARE = "IRESNET_VERIFY_PREPARE"
"""The environment variable."""
FIRST_USE = {"torch": ("torch._dynamo", "torch.func"), "jax": ("jax.numpy",)}
"""Modules that a framework imports at its first use. Nothing is computed with it: its threads would not survive the fork."""


def prepare() -> None:
    """Audit a network of NumPy alone, and import what frameworks that are loaded will import."""
    for framework, names in FIRST_USE.items():
        for name in names if framework in sys.modules else ():
            with suppress(ImportError):
                importlib.import_module(name)
    slope = 1.5
    subject = Subject(
        name="prepared", event_shape=(2,), framework="numpy", forward=lambda x: slope * x, inverse=lambda y: y / slope,
        log_det=lambda x: np.full(len(x), 2 * np.log(slope)))
    prepared = Prepared(subject, 0)
    for planned in plan_audit(prepared, "quick", 1e-6):
        run_check(prepared, planned, seed=0, budget="quick")
    gc.collect()
    gc.freeze()  # what is here now is never written again: forks share it


if os.environ.get(PREPARE) == "1":
    with suppress(Exception):  # a fork that is not prepared is slower, and as right
        prepare()
