"""Fixtures of the tests of toolchains."""

from __future__ import annotations

import pytest

from tests.support.cli import Project
from tests.toolchains.shop import Shop


@pytest.fixture(params=["pip", "uv"])
def shop(request: pytest.FixtureRequest, project: Project) -> Shop:
    """With each of the two installers."""
    return Shop(project, request.param)


@pytest.fixture
def pip_shop(project: Project) -> Shop:
    return Shop(project)
