"""Wheels in a team store: pushed by one, installed by others without an index, believed as far as the lock goes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.cli import Project
from tests.toolchains.shop import Shop, lock, sha256, wheel
from trtbuild.artifacts.team import TeamStore
from trtbuild.building.runner import Runner
from trtbuild.building.setup import Setup
from trtbuild.cli.toolchain_progress import ToolchainReporter
from trtbuild.config import schema
from trtbuild.errors import InputError
from trtbuild.toolchains import lock as locks
from trtbuild.toolchains import pythons, team_wheels
from trtstore import Store
from trtstore.format import trust
from trtstore.team import signing, trust_list

CONFIG = trust_list.FOLDER


class Reporter(ToolchainReporter):
    """Remembers what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, words: str) -> None:
        self.notes.append(words)


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CONFIG, str(tmp_path / "config"))
    for name in ("TRTBUILD_TEAM", "TRTSTORE_SIGNING_KEY", "TRTSTORE_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    trust_list.save([trust.parse(signing.new("ci", None))])
    (tmp_path / "team").mkdir()
    return tmp_path / "team"


def runner(root: Path, team: Path) -> Runner:
    config = schema.Config()
    config.executor, config.store = schema.ExecutorConf(), schema.StoreConf(team=team.as_uri())
    store, reporter = Store.open(root, durability="fast"), Reporter()
    return Runner(Setup(config, store, TeamStore(config.store, store, reporter.note), _no_source), reporter)


def _no_source():
    raise AssertionError("nobody asks for a checkpoint")


def test_who_has_no_index_installs_from_the_teams_store(tmp_path: Path, team: Path, monkeypatch) -> None:
    (tmp_path / "ci").mkdir()
    shop = Shop(Project(tmp_path / "ci"))
    made = [wheel(shop.wheels, "tiny_a", "1.0"), wheel(shop.wheels, "tiny_b", "2.0")]
    file = lock(tmp_path / "two.txt", *made)
    more = {"TRTBUILD_TEAM": team.as_uri(), CONFIG: str(tmp_path / "config")}
    pushed = shop.run("push", file, **more)
    assert pushed.code == 0, pushed.err
    assert pushed.out.startswith("two pushed, ")
    assert shop.run("push", file, **more).out.startswith("two was there, ")
    shutil.rmtree(shop.wheels)

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    found = locks.read(file, "test")
    dev = runner(tmp_path / "dev", team)
    python = pythons.python(None)
    environment = dev.tools.environments.ensure(found, python)
    assert environment.about["packages"] == {"tiny-a": "1.0", "tiny-b": "2.0"}
    assert any("from file://" in note and "every byte verified" in note for note in dev.reporter.notes)


def test_wheels_that_the_lock_does_not_have_are_not_installed(tmp_path: Path, team: Path, monkeypatch) -> None:
    """Signed by a trusted key, under the key of the lock, and still other bytes than were locked."""
    (tmp_path / "ci").mkdir()
    shop = Shop(Project(tmp_path / "ci"))
    good = wheel(shop.wheels, "tiny_a", "1.0")
    file = lock(tmp_path / "one.txt", good)
    found, python = locks.read(file, "test"), pythons.python(None)
    bad = wheel(tmp_path / "bad", "tiny_a", "1.0", {"tiny_a/evil.py": "raise SystemExit\n"})
    assert sha256(bad) != sha256(good)
    writer = runner(tmp_path / "writer", team)
    key = team_wheels.key_of(found, python)
    writer.setup.store.publish(key, tmp_path / "bad", predicate_type="urn:x", predicate={}, labels={})
    writer.setup.team.connection.push(writer.setup.store, key, signing.signer("ci"))

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    dev = runner(tmp_path / "dev", team)
    with pytest.raises(InputError, match=r"tiny.a"):
        dev.tools.environments.ensure(found, python)
    assert dev.tools.environments.find(found, python) is None
