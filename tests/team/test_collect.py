"""What goes from a team store, in which order, and what stays whatever the policy says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.store.support import KEY, OTHER
from tests.team.support import Machine, Place, machine, make, writer
from trtstore.errors import Invalid
from trtstore.format.digest import hex_of
from trtstore.remote.remote import blob_name, record_name
from trtstore.team import gc, signing
from trtstore.team import policy as teampolicy
from trtstore.team.gc import Gone, RetentionPolicy

DAY = 86_400.0
THIRD = "33" * 32


@pytest.fixture
def ci(place: Place, tmp_path: Path) -> Machine:
    """Three artifacts of 1000, 2000 and 3000 bytes, pushed in that order; the last two share a file of 500."""
    made = machine(tmp_path / "ci", place, writer("ci").public)
    for number, key in enumerate((KEY, OTHER, THIRD), 1):
        size = number * 1000 - (500 if number > 1 else 0)
        files = {"own": bytes([number]) * size, **({"shared": b"s" * 500} if number > 1 else {})}
        make(made.store, tmp_path / key, key, files)
        made.team().push(made.store, key, signing.signer("ci"))
        if made.url.startswith("s3:"):
            time.sleep(1.1)  # which tells to the second when an object came
    return made


def collect(made: Machine, policy: RetentionPolicy, *, days: float = 0, dry_run: bool = False) -> list[Gone]:
    return gc.collect(made.team(), made.store._layout, policy, dry_run=dry_run, now=time.time() + days * DAY)


def keys(gone: list[Gone]) -> list[str]:
    return [one.name for one in gone if one.kind == "record"]


def test_without_limits_all_stays(ci: Machine, place: Place) -> None:
    assert collect(ci, RetentionPolicy(None, None), days=1000) == []
    assert all(place.has(record_name(key)) for key in (KEY, OTHER, THIRD))


def test_what_is_old_goes_and_its_blobs_after_it(ci: Machine, place: Place, tmp_path: Path) -> None:
    late = "44" * 32
    make(ci.store, tmp_path / late, late, {"shared": b"s" * 500})
    later = collect(ci, RetentionPolicy(None, 30), days=31, dry_run=True)
    assert sorted(keys(later)) == sorted((KEY, OTHER, THIRD))
    assert place.has(record_name(KEY))
    gone = collect(ci, RetentionPolicy(None, 30), days=31)
    assert gone == later
    assert not place.has(record_name(KEY))
    own = ci.store.manifest(ci.store.lookup(KEY)).entries[0].sha256
    assert not place.has(blob_name(own))
    assert "30 days are kept" in gone[0].why


def test_above_the_size_the_oldest_go_and_shared_blobs_count_once(ci: Machine, place: Place) -> None:
    manifests = sum(len(place.get(blob_name(hex_of(ci.store.lookup(key).manifest)))) for key in (KEY, OTHER, THIRD))
    assert keys(collect(ci, RetentionPolicy(5500 + manifests, None), dry_run=True)) == []
    assert keys(collect(ci, RetentionPolicy(5499 + manifests, None), dry_run=True)) == [KEY]
    gone = collect(ci, RetentionPolicy(3600, None), days=2)
    assert sorted(keys(gone)) == sorted((KEY, OTHER))
    dev = machine(ci.store.root.with_name("dev"), place, *ci.trusted)
    assert dev.pull(THIRD) is not None  # with the file that it shared
    assert dev.pull(KEY) is None


def test_what_nothing_names_is_left_for_a_day(ci: Machine, place: Place) -> None:
    """A push puts blobs first: they may be a part of what is on its way."""
    place.remove(record_name(KEY))
    assert collect(ci, RetentionPolicy(None, None)) == []
    gone = collect(ci, RetentionPolicy(None, None), days=1.1)
    assert {one.kind for one in gone} == {"blob"}
    assert sum(one.bytes for one in gone) > 1000


def test_what_is_broken_or_revoked_goes_after_a_day(ci: Machine, place: Place) -> None:
    place.put(record_name(KEY), b"nonsense")
    own = max(ci.store.manifest(ci.store.lookup(THIRD)).entries, key=lambda entry: entry.size).sha256
    place.remove(blob_name(own))
    ci.team().revoke(ci.store.lookup(OTHER).manifest, "bad", signing.signer("ci"))
    assert keys(collect(ci, RetentionPolicy(None, None))) == []
    gone = {one.name: one.why for one in collect(ci, RetentionPolicy(None, None), days=1.1) if one.kind == "record"}
    assert gone.keys() == {KEY, OTHER, THIRD}
    assert "bad" in gone[OTHER]
    assert "is not there" in gone[THIRD]


def test_leases_that_nobody_touched_for_a_day_go(shared_folder: Place, tmp_path: Path) -> None:
    made = machine(tmp_path / "ci", shared_folder, writer("ci").public)
    shared_folder.put(f"v1/leases/{KEY}/00000001", b"{}")
    assert collect(made, RetentionPolicy(None, None)) == []
    (gone,) = collect(made, RetentionPolicy(None, None), days=1.1)
    assert gone.kind == "lease"
    assert not shared_folder.has(f"v1/leases/{KEY}/00000001")


def test_a_policy_is_what_a_trusted_key_signed(shared_folder: Place, tmp_path: Path) -> None:
    made = machine(tmp_path / "ci", shared_folder, f"{writer('ci').public} role=publish,gc")
    team = made.team()
    with pytest.raises(Invalid, match="no policy"):
        teampolicy.read(team)
    teampolicy.put(team, RetentionPolicy(500, 90), signing.signer("ci"))
    assert teampolicy.read(team) == RetentionPolicy(500, 90)
    shared_folder.put("v1/policy", teampolicy.statement(RetentionPolicy(0, 0)).encode())
    with pytest.raises(Invalid, match="no trusted key signed it"):
        teampolicy.read(team)
    for data in (b"", b"[]", made.store.root.as_posix().encode(), b"{" * 1000):
        shared_folder.put("v1/policy", data)
        with pytest.raises(Invalid, match="refused"):
            teampolicy.read(team)
