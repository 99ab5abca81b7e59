"""One warm auditor for all tests that audit: its imports are paid for once. Variables that are part of keys are as at the start."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from iresnet_verify.campaign.auditor import Auditor
from iresnet_verify.campaign.keys import VARIABLES

BEFORE = dict(os.environ)


@pytest.fixture(autouse=True)
def _variables_as_at_the_start() -> Iterator[None]:
    """Other tests of the process set variables that frameworks read. A patch of its own: a test may undo its own ones."""
    with pytest.MonkeyPatch.context() as patch:
        for name in {*os.environ, *BEFORE}:
            if name.startswith(VARIABLES) and os.environ.get(name) != BEFORE.get(name):
                patch.setenv(name, BEFORE[name]) if name in BEFORE else patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def auditor() -> Iterator[Auditor]:
    kept = Auditor()
    yield kept
    kept.close()
