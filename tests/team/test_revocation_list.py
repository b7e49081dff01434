"""Who controls the bucket cannot hide what was revoked, put an old list back, or let it end, without being seen."""

from __future__ import annotations

import datetime
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.store.support import KEY, OTHER
from tests.team.support import Machine, Place, as_ci, believer, machine, make, writer
from trtstore.errors import Invalid, Malformed, Untrusted
from trtstore.format.digest import hex_of
from trtstore.format.trust import TrustPolicy
from trtstore.marks import revocations
from trtstore.team import revocation_list, signing, versioned
from trtstore.team.revocation_list import RevocationList
from trtstore.team.signing import Signer
from trtstore.team.versioned import Issue

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
SERIES = "5e" * 16


class Team:
    """CI with role=revoke, one artifact in the store, and the place."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place, self.folder, self.ci = place, folder, writer("ci")
        self.line = f"{self.ci.public} name=ci role=publish,revoke"
        self.here = machine(folder / "ci", place, self.line)
        self.record = make(self.here.store, folder / "in")
        self.here.team().push(self.here.store, KEY, self.ci)

    def dev(self, name: str = "dev", policy: TrustPolicy = TrustPolicy.require) -> Machine:
        return machine(self.folder / name, self.place, self.line, policy=policy)

    def put(self, listing: RevocationList, signer: Signer | None = None, number: int | None = None) -> None:
        data = signing.sign(listing.statement(), signer or self.ci).encode()
        self.place.put(revocation_list.name(number or listing.issue.version), data)

    def names(self) -> list[str]:
        return sorted(path.name for path in (self.place.folder / "v1" / "revocations").iterdir())


@pytest.fixture
def team(shared_folder: Place, tmp_path: Path) -> Team:
    return Team(shared_folder, tmp_path)


def listing(version: int = 1, *digits: str, days: int = 30, ago: int = 0, series: str = SERIES) -> RevocationList:
    begun = NOW - ago * DAY
    return RevocationList(Issue(series, version, versioned.written(begun)), begun + days * DAY, tuple(sorted(digits)))


def refused(dev: Machine, words: str) -> None:
    assert dev.pull() is None
    assert any(words in told for told in dev.told), dev.told
    assert list(dev.store.keys()) == []


def test_without_a_list_nothing_is_taken_and_the_mend_is_told(team: Team) -> None:
    dev = team.dev()
    refused(dev, "has no list of revocations")
    assert "revoke --refresh" in dev.told[0]
    assert len(dev.told) == 1  # said once, not for each key
    team.here.team().revocations.issue(team.ci)
    assert team.dev().pull() is not None


def test_an_empty_store_is_told_as_one_unless_it_had_a_list(team: Team) -> None:
    before, saw = team.dev("before"), team.dev("saw")
    team.here.team().revocations.issue(team.ci)
    assert saw.pull() is not None
    for folder in ("records", "revocations"):
        shutil.rmtree(team.place.folder / "v1" / folder)
    empty = before.team()
    empty.sync()
    assert "is empty, and has no list of revocations yet; sign one" in before.told[0]
    again = saw.team()
    again.sync()
    assert "no list of revocations any more, and version 1 was seen before" in saw.told[-1]
    team.here.team().push(team.here.store, KEY, team.ci)
    for connection in (empty, again):  # neither takes what comes there meanwhile
        assert connection.lookup(KEY) is None
        with pytest.raises(Untrusted):
            connection.judged(KEY)


def test_who_revokes_again_writes_nothing_and_is_told_what_counts(team: Team, tmp_path: Path) -> None:
    ci = believer(tmp_path / "c", team.place, team.ci, "publish,revoke", **as_ci())
    make(ci.store, tmp_path / "in-c")

    def there() -> dict[str, int]:
        files = (path for path in team.place.folder.rglob("*") if path.is_file())
        return {str(path): path.stat().st_mtime_ns for path in files}

    assert ci.trtstore("revoke", KEY[:8], "--reason", "wrong scales").code == 0
    before = there()
    for name, reason in ((KEY[:8], "wrong scales"), (team.record.manifest, "another")):
        done = ci.trtstore("revoke", name, "--reason", reason)
        assert done.code == 0, done.err
        assert f"{team.record.manifest} is revoked already, by ci on " in done.out
        assert ": wrong scales" in done.out  # the first reason stays, and that is said
        assert ("that reason stays" in done.out) == (reason == "another")
        assert there() == before
    assert ci.trtstore("revoke", KEY[:8], "--reason", "x", "--json").json["already"]

    # What is missing of it is written again; another key says it beside, in its own name.
    team.place.remove(revocation_list.name(1))
    assert ci.trtstore("revoke", KEY[:8], "--reason", "x").out.startswith("revoked ")
    assert team.names() == ["00000002"]
    other = writer("other")
    lines = (team.line, f"{other.public} name=other role=revoke")
    here = machine(tmp_path / "o", team.place, *lines).team()
    assert here.revocations.standing(team.record.manifest, other, None) is None
    assert here.revoke(team.record.manifest, "mine", other, None).reason == "mine"
    assert here.revocations.standing(team.record.manifest, other, None) is not None
    names = [path.name for path in (team.place.folder / "v1" / "revoked").iterdir()]
    assert len(names) == 3  # the first one's, by both names, and the other's


def test_with_warn_it_is_a_word_and_with_off_nothing(team: Team) -> None:
    warned, off = team.dev("warned", TrustPolicy.warn), team.dev("off", TrustPolicy.off)
    assert warned.pull() is not None
    assert "has no list of revocations" in warned.told[0]
    assert off.pull() is not None
    assert off.told == []


def test_who_trusts_no_key_with_that_role_needs_no_list(team: Team) -> None:
    assert machine(team.folder / "x", team.place, f"{team.ci.public} name=ci").pull() is not None


def test_a_revocation_that_is_hidden_counts_all_the_same(team: Team) -> None:
    team.here.team().revoke(team.record.manifest, "wrong scales", team.ci)
    for path in (team.place.folder / "v1" / "revoked").iterdir():
        path.unlink()
    dev = team.dev()
    refused(dev, "on the list of revocations")
    assert revocations.of(dev.store._layout, hex_of(team.record.manifest), None) is not None


def test_a_revocation_by_a_narrow_key_hides_none_that_is_on_the_list(team: Team) -> None:
    """Also where the local store has forgotten what was revoked, and the list is the one that was seen before."""
    team.here.team().revoke(team.record.manifest, "wrong scales", team.ci)
    dev = team.dev()
    refused(dev, "was revoked")
    for path in (team.place.folder / "v1" / "revoked").iterdir():
        path.unlink()
    intern = writer("intern")
    lines = (team.line, f"{intern.public} name=intern model=toy")
    machine(team.folder / "intern", team.place, *lines).team().revoke(team.record.manifest, "mine", intern)
    shutil.rmtree(dev.store._layout.revoked)
    late = machine(dev.store.root, team.place, *lines)
    assert late.pull() is None
    assert "on the list of revocations" in late.told[-1]


def test_an_old_list_is_refused_by_who_has_seen_a_newer_one(team: Team) -> None:
    team.here.team().revocations.issue(team.ci)
    old = team.place.get(revocation_list.name(1))
    dev = team.dev()
    assert dev.pull() is not None
    team.here.team().revoke("sha256:" + "77" * 32, "x", team.ci)
    dev.team().sync()
    for name in team.names():
        team.place.remove(revocation_list.PREFIX + name)
    team.place.put(revocation_list.name(1), old)
    late = machine(dev.store.root, team.place, team.line)
    make(team.here.store, team.folder / "in2", OTHER, {"x": b"y"})
    team.here.team().push(team.here.store, OTHER, team.ci)
    assert late.pull(OTHER) is None
    assert "is version 1, and version 2 was seen before" in late.told[0]
    assert late.pull(KEY) is not None  # what is here already is used


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda team: team.put(listing(days=1, ago=3)), "counted until"),
        (lambda team: team.put(listing(), writer("mallory")), "has no list of revocations"),
        (lambda team: team.put(listing(1), number=2), "has no list of revocations"),
        (lambda team: team.put(listing(ago=-9)), "set the clock"),
        (lambda team: team.place.put(revocation_list.name(1), b"{" * 1000), "has no list of revocations"),
    ],
    ids=["ended", "another signer", "another number", "to come", "nonsense"],
)
def test_a_list_that_does_not_count_is_told(team: Team, change, says: str) -> None:
    change(team)
    refused(team.dev(), says)


def test_a_list_of_another_store_of_the_same_team_is_refused(team: Team) -> None:
    team.put(listing(1))
    dev = team.dev()
    assert dev.pull() is not None
    team.put(listing(9, series="77" * 16))
    again = machine(dev.store.root, team.place, team.line)
    again.team().sync()
    assert "of another series than was seen before" in again.told[0]


def test_two_who_revoke_at_once_lose_nothing(team: Team) -> None:
    digits = [f"{number:064x}" for number in range(1, 7)]
    machines = [team.dev(f"w{number}") for number, _ in enumerate(digits)]
    with ThreadPoolExecutor(len(digits)) as pool:
        done = pool.map(lambda one, digits: one.team().revoke(f"sha256:{digits}", "x", team.ci), machines, digits)
        assert len(list(done)) == len(digits)
    newest = revocation_list.parse(team.place.get(revocation_list.PREFIX + team.names()[-1]))[1]
    assert set(newest.revoked) == set(digits)
    assert newest.issue.version == len(digits)
    assert len(team.names()) <= 3 + len(digits)


def test_names_that_are_taken_by_nonsense_keep_nobody_from_signing(team: Team) -> None:
    for version in (1, *range(99_999_990, 100_000_000)):
        team.place.put(revocation_list.name(version), b"nonsense")
    team.here.team().revoke(team.record.manifest, "x", team.ci)
    refused(team.dev(), "was revoked")
    assert team.names()[0] == "00000001"


def test_a_machine_that_remembers_goes_on_where_the_list_was_put_back(team: Team) -> None:
    """An old one is in its place: what was revoked since is not lost when it is signed anew."""
    team.here.team().revocations.issue(team.ci)
    old = team.place.get(revocation_list.name(1))
    team.here.team().revoke(team.record.manifest, "x", team.ci)
    for name in team.names():
        team.place.remove(revocation_list.PREFIX + name)
    for path in (team.place.folder / "v1" / "revoked").iterdir():
        path.unlink()
    team.place.put(revocation_list.name(1), old)
    made = team.here.team().revocations.issue(team.ci)
    assert (made.issue.version, made.revoked) == (3, (hex_of(team.record.manifest),))


def test_a_list_is_kept_for_as_long_as_it_was_signed_for(team: Team) -> None:
    first = team.here.team().revocations.issue(team.ci, (), 7 * 86_400.0)
    assert first.seconds == 7 * 86_400
    team.here.team().revoke(team.record.manifest, "x", team.ci)
    assert revocation_list.parse(team.place.get(revocation_list.name(2)))[1].seconds == 7 * 86_400


def test_who_may_not_sign_it_is_told_how(team: Team) -> None:
    other = writer("other")
    with pytest.raises(Invalid, match="may not sign the list") as caught:
        team.here.team().revocations.issue(other)
    assert "role=revoke" in (caught.value.hint or "")


def test_what_was_remembered_and_cannot_be_read_is_told_with_its_path(team: Team) -> None:
    team.put(listing())
    dev = team.dev()
    assert dev.pull() is not None
    (seen,) = (dev.store.root / "v1" / "teams").rglob("revocations")
    seen.write_bytes(b"nonsense")
    again = machine(dev.store.root, team.place, team.line)
    again.team().sync()
    assert "cannot be read" in again.told[0]
    assert str(seen) in again.told[0]
    seen.unlink()
    assert machine(dev.store.root, team.place, team.line).team().revocations.stale is None


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": True},
        {"version": 10**400},
        {"version": 1.5},
        {"series": "x"},
        {"series": None},
        {"issuedOn": "yesterday"},
        {"issuedOn": "2026-1-2T3:4:5Z"},
        {"expiresOn": "2020-01-01T00:00:00Z"},
        {"expiresOn": 7},
        {"revoked": ["ab" * 32, "aa" * 32]},
        {"revoked": ["ab" * 32, "ab" * 32]},
        {"revoked": ["AB" * 32]},
        {"revoked": [7]},
        {"revoked": {}},
        {"more": 1},
    ],
)
def test_a_list_is_read_strictly(change: dict[str, object]) -> None:
    good = {
        "series": SERIES,
        "version": 1,
        "issuedOn": "2026-01-02T03:04:05Z",
        "expiresOn": "2026-02-01T03:04:05Z",
        "revoked": ["ab" * 32],
    }
    revocation_list.parse(versioned.enclosed(revocation_list.NAME, revocation_list.PREDICATE_TYPE, good).encode())
    try:
        bad = versioned.enclosed(revocation_list.NAME, revocation_list.PREDICATE_TYPE, {**good, **change})
    except ValueError:
        return  # JSON of one spelling has no such number
    with pytest.raises(Malformed):
        revocation_list.parse(bad.encode())
    with pytest.raises(Malformed):
        revocation_list.parse(versioned.enclosed("policy", revocation_list.PREDICATE_TYPE, good).encode())


def test_a_list_has_a_limit() -> None:
    with pytest.raises(Invalid, match="a list holds"):
        listing(1, *(f"{n:064x}" for n in range(revocation_list.MAX_DIGESTS + 1))).statement()
    whole = listing(1, *(f"{n:064x}" for n in range(revocation_list.MAX_DIGESTS))).statement().encode()
    assert len(whole) < revocation_list.MAX_BYTES
    assert len(revocation_list.parse(whole)[1].revoked) == revocation_list.MAX_DIGESTS


def test_a_push_needs_no_list_and_replaces_nothing_for_the_want_of_one(team: Team) -> None:
    before = team.place.get(f"v1/records/{KEY[:2]}/{KEY}")
    assert not team.here.team().push(team.here.store, KEY, team.ci).new
    assert team.place.get(f"v1/records/{KEY[:2]}/{KEY}") == before
    with pytest.raises(Untrusted):
        team.dev().team().judged(KEY)


def test_the_commands_sign_it_and_a_nightly_collection_does_too(team: Team, tmp_path: Path) -> None:
    ci = believer(tmp_path / "c", team.place, team.ci, "publish,revoke,gc", **as_ci())
    done = ci.trtstore("revoke", "--refresh", "--valid", "7d", "--json")
    assert done.code == 0, done.err
    assert (done.json["version"], done.json["revoked"]) == (1, 0)
    assert ci.trtstore("policy", "--max-size", "1GB").code == 0
    assert "is valid until" in ci.trtstore("gc", "--team").err
    assert team.names()[-1] == "00000002"
    assert ci.trtstore("gc", "--team", "--dry-run").code == 0
    assert team.names()[-1] == "00000002"
    for words in (["revoke"], ["revoke", "ab" * 32], ["revoke", "--refresh", "ab" * 32, "--reason", "x"]):
        assert ci.trtstore(*words).code == 2


def test_a_mirror_has_the_revocations_and_the_list(team: Team, tmp_path: Path) -> None:
    team.here.team().revoke("sha256:" + "77" * 32, "x", team.ci)
    me = believer(tmp_path / "m", team.place, team.ci, "publish,revoke")
    (tmp_path / "mirror").mkdir()
    url = (tmp_path / "mirror").as_uri()
    assert me.trtstore("mirror", team.place.url, url).code == 0
    there = machine(tmp_path / "d", Place(url, folder=tmp_path / "mirror"), team.line)
    assert there.pull() is not None
    assert revocations.of(there.store._layout, "77" * 32, None) is not None


def test_it_works_in_a_bucket_as_well(bucket: Place, tmp_path: Path) -> None:
    signer = writer("ci")
    line = f"{signer.public} name=ci role=publish,revoke"
    here = machine(tmp_path / "ci", bucket, line)
    record = make(here.store, tmp_path / "in")
    here.team().push(here.store, KEY, signer)
    here.team().revocations.issue(signer)
    assert machine(tmp_path / "dev", bucket, line).pull() is not None
    here.team().revoke(record.manifest, "x", signer)
    assert machine(tmp_path / "dev2", bucket, line).pull() is None
    assert bucket.has(revocation_list.name(2))


def test_names_that_something_else_has_taken_are_taken_away_by_who_signs_next(team: Team) -> None:
    team.here.team().revocations.issue(team.ci)
    for number in range(99_999_960, 100_000_000):
        team.place.put(revocation_list.name(number), b"{}")
    refused(team.dev("late"), "has no list of revocations")
    team.here.team().revocations.issue(team.ci)
    assert team.names() == ["00000001", "00000002"]
    assert team.dev("later").pull() is not None


def test_who_signs_the_first_list_is_not_told_that_there_is_none(team: Team) -> None:
    here = machine(team.folder / "first", team.place, team.line)
    here.team().revocations.issue(team.ci)
    assert here.told == []
