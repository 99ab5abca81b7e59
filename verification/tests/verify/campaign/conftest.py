"""One warm auditor for all tests that audit: its imports are paid for once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iresnet_verify.campaign.auditor import Auditor


@pytest.fixture(scope="session")
def auditor() -> Iterator[Auditor]:
    kept = Auditor()
    yield kept
    kept.close()
