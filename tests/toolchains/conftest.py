"""Fixtures of the tests of toolchains."""

from __future__ import annotations

import pytest

from tests.support.cli import Project
from tests.toolchains.shop import Shop


@pytest.fixture
def shop(project: Project) -> Shop:
    return Shop(project)
