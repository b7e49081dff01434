"""A store that an earlier trtbuild wrote is read unchanged, by key; `make.py` wrote the archives here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.store.compat.make import ENGINE, OTHER, WEIGHTS
from trtstore import Maintenance, ReadOnly, Store, TrustPolicy, open_team
from trtstore.exchange import bundle
from trtstore.index import usage
from trtstore.team import trust_list

HERE = Path(__file__).parent
FILES = {"engine.bin": b"engine", "bin/tool": b"#!/bin/sh\n"}


@pytest.fixture(params=["b860744", "180284f"])
def old(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the commit of that name wrote."""
    monkeypatch.setenv(trust_list.FOLDER, str(tmp_path / "config"))
    (tmp_path / "old").mkdir()
    subprocess.run(["tar", "-xzf", HERE / f"{request.param}.tar.gz", "-C", tmp_path / "old"], check=True)
    return tmp_path / "old"


def test_each_artifact_is_a_hit_by_its_key(old: Path) -> None:
    store = Store.open(old / "store")
    assert list(store.keys()) == [ENGINE, OTHER, WEIGHTS]
    record = store.use(ENGINE, verify="always", on_problem=pytest.fail)
    assert record is not None
    assert record.labels == {"step": "engine", "model": "toy", "needs": WEIGHTS}
    assert record.predicate["buildDefinition"] == {"externalParameters": {"step.name": "engine"}}
    tree = store.materialise(record)
    assert {name: (tree.path / name).read_bytes() for name in FILES} == FILES
    assert (tree.path / "bin/tool").stat().st_mode & 0o111
    log = store.blob_path(record.attachments["log"].digest)
    assert log is not None and log.read_bytes() == b"made engine"


def test_it_is_whole_listed_and_kept(old: Path) -> None:
    store = Store.open(old / "store")
    maintenance = Maintenance(store)
    assert maintenance.verify() == []
    models = {summary.key: summary.labels["model"] for summary in maintenance.catalog.summaries()}
    assert models == {ENGINE: "toy", OTHER: "other", WEIGHTS: "toy"}
    assert usage.build_seconds(store.index) == dict.fromkeys((ENGINE, OTHER, WEIGHTS), 3.5)
    assert maintenance.pins()[OTHER].note == "kept for May"
    evictions = maintenance.collect(0, grace=0)
    assert {decision.name for decision in evictions.removed if decision.kind == "record"} == {ENGINE, WEIGHTS}
    assert list(store.keys()) == [OTHER]


def test_another_store_takes_what_it_has(old: Path, tmp_path: Path) -> None:
    mine, theirs = Store.open(tmp_path / "mine"), ReadOnly.open(old / "store")
    assert mine.receive(ENGINE, theirs.envelope(ENGINE), theirs).new
    with (old / "artifacts.tar").open("rb") as file:
        assert [received.record.key for received in bundle.import_from(mine, file)] == [OTHER]
    assert Maintenance(mine).verify() == []


def test_what_a_team_signed_is_believed(old: Path, tmp_path: Path) -> None:
    line = f"{(old / 'key').read_text()} name=ci"
    url = (old / "team").as_uri()
    team = open_team(url, Store.open(tmp_path / "mine"), TrustPolicy.require, [line], pytest.fail)
    record = team.lookup(ENGINE)
    assert record is not None and record.labels["model"] == "toy"
    assert team.signers(ENGINE) == ("ci",)
