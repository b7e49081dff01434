"""Whose word counts: what is unsigned, signed by others, out of scope, replaced, replayed or revoked is refused.

In each case the artifact is sound in every other way, and nothing of it is written or kept before the refusal.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from tests.store.support import KEY, OTHER, leftovers, read_tree
from tests.team.support import LABELS, Machine, Place, machine, make, trusted, writer
from trtstore import Attachment, Record, Store
from trtstore.disk.hashing import ignore_bytes
from trtstore.errors import Corrupt, Invalid, Malformed, Untrusted
from trtstore.exchange.layered import Layered
from trtstore.format import canonical_json, envelope, trust
from trtstore.format import record as records
from trtstore.format.digest import hash_bytes, hex_of
from trtstore.format.envelope import Envelope
from trtstore.format.trust import TrustPolicy
from trtstore.marks import revocations
from trtstore.remote.remote import blob_name, record_name
from trtstore.team import admin, signing, trust_list
from trtstore.team.verify import Mender, verify

REVOKED = "v1/revoked/"


@pytest.fixture
def ci(shared_folder: Place, tmp_path: Path) -> Machine:
    """A writer's machine that has pushed one artifact, signed by `ci`."""
    signer = writer("ci")
    made = machine(tmp_path / "ci", shared_folder, signer.public)
    make(made.store, tmp_path / "in")
    made.team().push(made.store, KEY, signer)
    return made


def reader(tmp_path: Path, place: Place, *keys: str, policy: TrustPolicy = TrustPolicy.require) -> Machine:
    return machine(tmp_path / "reader", place, *keys, policy=policy)


def refused(dev: Machine, words: str, key: str = KEY) -> None:
    """`dev` gets nothing, is told why, and has nothing of it on its disk."""
    assert dev.pull(key) is None
    assert any(words in told for told in dev.told), dev.told
    base = dev.store.root / "v1"
    assert not list(base.glob("blobs/**/??*/*"))
    assert not list(base.glob("records/*/*"))
    assert leftovers(dev.store.root) == []


def public(ci: Machine) -> str:
    return ci.trusted[0]


def rewritten(place: Place, change, key: str = KEY) -> None:
    """The record of `key` with its statement changed, and its signatures as they were."""
    found = envelope.parse(place.get(record_name(key)), records.MAX_BYTES, "it")
    said = json.loads(found.payload)
    change(said)
    place.put(record_name(key), Envelope(canonical_json.canonical(said), found.signatures).encode())


def test_what_a_trusted_key_signed_is_taken_and_keeps_its_signature(ci, shared_folder, tmp_path) -> None:
    dev = reader(tmp_path, shared_folder, public(ci))
    record = dev.pull()
    assert record is not None
    assert read_tree(dev.store.materialise(record).path) == read_tree(tmp_path / "in")
    kept = envelope.parse(dev.store.envelope(KEY), records.MAX_BYTES, "it")
    assert [str(one) for one in signing.signed_by(kept, [trusted(signing.signer("ci"), "name=ci")])] == ["ci"]
    assert dev.told == []


def test_an_unsigned_record_is_refused(ci, shared_folder, tmp_path) -> None:
    shared_folder.put(record_name(KEY), ci.store.envelope(KEY))
    refused(reader(tmp_path, shared_folder, public(ci)), "nobody signed it")


def test_a_record_signed_by_another_key_is_refused(ci, shared_folder, tmp_path) -> None:
    other = writer("other")
    refused(reader(tmp_path, shared_folder, other.public), "no trusted key signed it")
    assert public(ci) != other.public


def test_a_signature_that_claims_to_be_a_trusted_keys_is_refused(ci, shared_folder, tmp_path) -> None:
    """The keyid is what an attacker writes; the signature under it is of another key."""
    unsigned = envelope.parse(ci.store.envelope(KEY), records.MAX_BYTES, "it")
    right = signing.sign(unsigned, signing.signer("ci")).signatures[0]
    wrong = signing.sign(unsigned, writer("mallory")).signatures[0]
    forged = envelope.Signature(right.keyid, wrong.sig)
    shared_folder.put(record_name(KEY), Envelope(unsigned.payload, (forged,)).encode())
    refused(reader(tmp_path, shared_folder, public(ci)), "no trusted key signed it")

    # The right one beside it counts: a forged one cannot hide it.
    shared_folder.put(record_name(KEY), Envelope(unsigned.payload, (forged, right)).encode())
    assert machine(tmp_path / "reader2", shared_folder, public(ci)).pull() is not None


def test_no_trusted_key_at_all_is_told_with_the_mend(ci, shared_folder, tmp_path) -> None:
    dev = reader(tmp_path, shared_folder)
    refused(dev, "no key is trusted")
    assert "trtstore trust add" in dev.told[0]
    assert ci.told == []


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("model=llama*", True),
        ("model=qwen*,llama-7b compiler=tensorrt", True),
        ("model=qwen*", False),
        ("model=llama* compiler=onnxruntime", False),
        ("region=eu", False),
    ],
)
def test_a_key_counts_for_what_it_is_trusted_with(ci, shared_folder, tmp_path, scope, allowed) -> None:
    dev = reader(tmp_path, shared_folder, f"{public(ci)} name=ci {scope}")
    if allowed:
        assert dev.pull() is not None
    else:
        refused(dev, "ci signed it, and is not trusted for")


def test_a_scope_is_held_to_what_was_asked_for_not_to_what_the_record_calls_itself(ci, shared_folder, tmp_path) -> None:
    """A key that is trusted for llama has signed for the key of another model, under the name of its own."""
    dev = reader(tmp_path, shared_folder, f"{public(ci)} name=ci model=llama*")
    team = dev.team()
    team.expected[KEY] = {**LABELS, "model": "qwen-72b"}
    assert team.lookup(KEY, on_problem=dev.told.append) is None
    assert "ci signed it, and is not trusted for model=qwen-72b" in dev.told[0]
    other = dev.team()
    other.expected[KEY] = LABELS
    assert other.lookup(KEY) is not None


def test_a_blob_that_was_replaced_is_not_kept(ci, shared_folder, tmp_path) -> None:
    record = ci.store.lookup(KEY)
    digits = ci.store.manifest(record).entries[0].sha256
    size = len(shared_folder.get(blob_name(digits)))
    shared_folder.put(blob_name(digits), b"X" * size)
    dev = reader(tmp_path, shared_folder, public(ci))
    assert dev.pull() is None
    assert any("is not what its name says" in told for told in dev.told)
    assert not dev.store.blob_path(f"sha256:{digits}")
    assert list(dev.store.keys()) == []


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "gone", "other bytes"])
@pytest.mark.parametrize("what", ["blob", "manifest"])
def test_what_is_there_and_cannot_be_taken_is_a_refusal(ci, shared_folder, tmp_path, what, kind) -> None:
    """And never waited for; whoever must know it from an absence finds why."""
    record = ci.store.lookup(KEY)
    entry = ci.store.manifest(record).entries[0]
    place = shared_folder.folder / blob_name(entry.sha256 if what == "blob" else hex_of(record.manifest))
    place.rename(tmp_path / "aside")
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "link":
        place.symlink_to(tmp_path / "aside")
    elif kind == "other bytes":
        place.write_bytes(b"X" * (tmp_path / "aside").stat().st_size)
    dev = reader(tmp_path, shared_folder, public(ci))
    team = dev.team()
    assert Layered(dev.store, [team]).lookup(KEY, on_problem=dev.told.append) is None
    assert str(team.refused[KEY]) in dev.told[0]
    assert team.down is None
    assert list(dev.store.keys()) == []


@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
@pytest.mark.parametrize("what", ["record", "blob", "manifest"])
def test_what_is_no_file_is_one_damaged_artifact_and_is_put_right(ci, shared_folder, tmp_path, what, kind) -> None:
    """The team store is asked for others; `verify` sees it, a push replaces it, and a collector may take it."""
    record = ci.store.lookup(KEY)
    entry = ci.store.manifest(record).entries[0]
    digits = entry.sha256 if what == "blob" else hex_of(record.manifest)
    place = shared_folder.folder / (record_name(KEY) if what == "record" else blob_name(digits))
    place.rename(tmp_path / "aside")
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
        (place / "inside").touch()
    else:
        place.symlink_to(tmp_path / "aside")
    dev = reader(tmp_path, shared_folder, public(ci))
    team = dev.team()
    assert Layered(dev.store, [team]).lookup(KEY) is None
    assert team.down is None
    assert isinstance(team.refused[KEY], Corrupt)
    (problem,) = verify(team, list(team.keys()), every_byte=True, on_bytes=ignore_bytes)
    assert problem.key == KEY
    assert len(admin.rows(team.remote, {}, lambda _: None)) == 1
    if what == "record":
        ci.team().push(ci.store, KEY, signing.signer("ci"))
    else:
        mender = Mender(ci.team(), ci.store)
        (problem,) = verify(ci.team(), [KEY], every_byte=True, on_bytes=ignore_bytes, mend=mender)
        assert problem.mended, problem.words
    assert reader(tmp_path, shared_folder, public(ci)).pull() is not None
    assert list(verify(dev.team(), [KEY], every_byte=True, on_bytes=ignore_bytes)) == []


def test_an_old_record_does_not_count_for_another_key(ci, shared_folder, tmp_path) -> None:
    shared_folder.put(record_name(OTHER), shared_folder.get(record_name(KEY)))
    refused(reader(tmp_path, shared_folder, public(ci)), "the record is of the key", OTHER)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said["predicate"].update(builder="mallory"),
        lambda said: said["subject"][0]["annotations"]["labels"].update(model="other"),
        lambda said: said["subject"][0].update(digest={"sha256": "00" * 32}),
        lambda said: said.update(predicateType="https://example.org/another"),
    ],
    ids=["predicate", "labels", "digest", "type"],
)
def test_a_statement_that_was_changed_is_refused(ci, shared_folder, tmp_path, change) -> None:
    rewritten(shared_folder, change)
    refused(reader(tmp_path, shared_folder, public(ci)), "no trusted key signed it")


def test_a_revocation_is_no_record_and_a_record_no_revocation(ci, shared_folder, tmp_path) -> None:
    """Both are signed by the same key: neither may stand for the other."""
    digest = ci.store.lookup(KEY).manifest
    statement = signing.sign(revocations.statement(digest, "bad"), signing.signer("ci")).encode()
    shared_folder.put(record_name(KEY), statement)
    refused(reader(tmp_path, shared_folder, public(ci)), "the record")
    with pytest.raises(Malformed):
        revocations.parse(ci.store.envelope(KEY), hex_of(digest))


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", "a\\b"])
def test_a_manifest_that_leads_outside_is_refused(ci, shared_folder, tmp_path, path) -> None:
    """Signed by a trusted key, and still not followed."""
    entry = {"mode": "0644", "path": path, "sha256": hash_bytes(b"x"), "size": 1}
    listing = canonical_json.canonical({"entries": [entry], "schema": 1})
    shared_folder.put(blob_name(hash_bytes(b"x")), b"x")
    _push_by_hand(shared_folder, listing, size=1)
    dev = reader(tmp_path, shared_folder, public(ci))
    before = _outside(dev, tmp_path)
    refused(dev, "path")
    assert _outside(dev, tmp_path) == before


def _outside(dev: Machine, folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_relative_to(dev.store.root))


def test_a_gigantic_manifest_is_not_read(ci, shared_folder, tmp_path) -> None:
    digits = "ab" * 32
    place = shared_folder.folder / blob_name(digits)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte, of which no block exists
    _push_by_hand(shared_folder, None, size=1, digits=digits)
    refused(reader(tmp_path, shared_folder, public(ci)), "no regular file of at most")


def test_a_digest_of_two_sizes_is_refused(ci, shared_folder, tmp_path) -> None:
    entry = {"mode": "0644", "path": "a", "sha256": hash_bytes(b"x"), "size": 1}
    listing = canonical_json.canonical({"entries": [entry], "schema": 1})
    shared_folder.put(blob_name(hash_bytes(listing)), listing)
    log = {"log": Attachment(f"sha256:{hash_bytes(b'x')}", 1 << 40)}
    _push_by_hand(shared_folder, listing, size=1, attachments=log)
    refused(reader(tmp_path, shared_folder, public(ci)), "two sizes")


def test_a_gigantic_record_is_not_read(ci, shared_folder, tmp_path) -> None:
    place = shared_folder.folder / record_name(OTHER)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as file:
        file.truncate(1 << 40)
    dev = reader(tmp_path, shared_folder, public(ci))
    assert dev.pull(OTHER) is None
    assert any("no regular file of at most" in told for told in dev.told)


def _push_by_hand(
    place: Place, listing: bytes | None, *, size: int, digits: str | None = None, attachments=None
) -> None:
    """A record of KEY for a manifest that no store of ours would publish, signed by `ci`."""
    digits = digits or hash_bytes(listing or b"")
    if listing is not None:
        place.put(blob_name(digits), listing)
    record = Record(KEY, f"sha256:{digits}", size, 1, LABELS, attachments or {}, "https://example.org/build/v1", {})
    unsigned = envelope.parse(records.encode(record), records.MAX_BYTES, "it")
    place.put(record_name(KEY), signing.sign(unsigned, signing.signer("ci")).encode())


def test_with_warn_it_is_taken_and_told_and_with_off_just_taken(ci, shared_folder, tmp_path) -> None:
    shared_folder.put(record_name(KEY), ci.store.envelope(KEY))
    warned = reader(tmp_path, shared_folder, public(ci), policy=TrustPolicy.warn)
    assert warned.pull() is not None
    assert "nobody signed it" in warned.told[0]
    off = machine(tmp_path / "off", shared_folder, policy=TrustPolicy.off)
    assert off.pull() is not None
    assert off.told == []


def test_with_off_bytes_are_verified_all_the_same(ci, shared_folder, tmp_path) -> None:
    digits = ci.store.manifest(ci.store.lookup(KEY)).entries[0].sha256
    shared_folder.put(blob_name(digits), b"X" * len(shared_folder.get(blob_name(digits))))
    assert machine(tmp_path / "off", shared_folder, policy=TrustPolicy.off).pull() is None


# Revocation


def test_what_was_revoked_is_refused_where_it_is_fetched_and_where_it_was(ci, shared_folder, tmp_path) -> None:
    had, digest = reader(tmp_path, shared_folder, public(ci)), ci.store.lookup(KEY).manifest
    assert had.pull() is not None
    ci.team().revoke(digest, "wrong scales", signing.signer("ci"))
    refused(machine(tmp_path / "new", shared_folder, public(ci)), "wrong scales")

    # Who has it already learns of it when he next asks the team for anything, and from then on it is a miss at home.
    had.team().sync()
    assert had.store.lookup(KEY, on_problem=had.told.append) is None
    assert "was revoked" in had.told[-1]
    assert ci.store.lookup(KEY, on_problem=ci.told.append) is None
    assert Store.open(had.store.root).lookup(KEY, on_problem=had.told.append) is None  # and without the team


def test_a_file_can_be_revoked_and_takes_every_artifact_with_it(ci, shared_folder, tmp_path) -> None:
    digits = ci.store.manifest(ci.store.lookup(KEY)).entries[0].sha256
    ci.team().revoke(f"sha256:{digits}", "a bad file", signing.signer("ci"))
    dev = reader(tmp_path, shared_folder, public(ci))
    refused(dev, "a bad file")
    team = dev.team()
    Layered(dev.store, [team]).lookup(KEY, on_problem=dev.told.append)
    assert "a bad file" in str(team.refused[KEY])  # for who must know a refusal from an absence


def test_what_was_revoked_cannot_be_pushed_again(ci, shared_folder, tmp_path) -> None:
    digest = ci.store.lookup(KEY).manifest
    ci.team().revoke(digest, "bad", signing.signer("ci"))
    elsewhere = machine(tmp_path / "ci2", shared_folder, public(ci))
    make(elsewhere.store, tmp_path / "in2")
    with pytest.raises(Untrusted, match="was revoked"):
        elsewhere.team().push(elsewhere.store, KEY, signing.signer("ci"))


def test_a_revocation_that_no_trusted_key_signed_counts_for_nothing(ci, shared_folder, tmp_path) -> None:
    digest = ci.store.lookup(KEY).manifest
    mallory = writer("mallory")
    shared_folder.put(REVOKED + hex_of(digest), signing.sign(revocations.statement(digest, "denied"), mallory).encode())
    dev = reader(tmp_path, shared_folder, public(ci))
    assert dev.pull() is not None
    assert any("passed over: no trusted key signed it" in told for told in dev.told)
    ci.team().revoke(digest, "really", signing.signer("ci"))  # and does not keep the name from who may
    refused(machine(tmp_path / "new", shared_folder, public(ci)), "really")


def test_a_revocation_of_another_digest_is_not_taken(ci, shared_folder, tmp_path) -> None:
    digest = ci.store.lookup(KEY).manifest
    statement = signing.sign(revocations.statement(f"sha256:{'77' * 32}", "other"), signing.signer("ci"))
    shared_folder.put(REVOKED + hex_of(digest), statement.encode())
    assert reader(tmp_path, shared_folder, public(ci)).pull() is not None


# Keys


def test_several_may_sign_and_one_of_them_is_enough(ci, shared_folder, tmp_path) -> None:
    release = writer("release")
    unsigned = envelope.parse(shared_folder.get(record_name(KEY)), records.MAX_BYTES, "it")
    shared_folder.put(record_name(KEY), signing.sign(unsigned, release).encode())
    for name, key in (("a", public(ci)), ("b", release.public)):
        assert machine(tmp_path / name, shared_folder, key).pull() is not None


def test_after_a_rotation_what_the_old_key_signed_is_pushed_again_by_the_new(ci, shared_folder, tmp_path) -> None:
    new = writer("ci-2027")
    dev = reader(tmp_path, shared_folder, new.public)
    refused(dev, "no trusted key signed it")
    rotated = machine(tmp_path / "ci", shared_folder, new.public)
    assert rotated.team().push(rotated.store, KEY, new).new
    assert machine(tmp_path / "dev", shared_folder, new.public).pull() is not None
    assert ci.url == rotated.url


def test_a_private_key_is_a_file_that_nobody_else_reads(tmp_path: Path) -> None:
    writer("ci")
    path = trust_list.folder() / "keys" / "ci.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert b"PRIVATE KEY" in path.read_bytes()
    path.chmod(0o640)
    with pytest.raises(Invalid, match="others can read"):
        signing.signer("ci")
    assert tmp_path in path.parents


def test_a_passphrase_is_wanted_and_checked(monkeypatch) -> None:
    signing.new("ci", "correct horse")
    with pytest.raises(Invalid, match="has a passphrase"):
        signing.signer(None)
    monkeypatch.setenv("TRTSTORE_PASSPHRASE", "wrong")
    with pytest.raises(Invalid, match="does not open") as caught:
        signing.signer(None)
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv("TRTSTORE_PASSPHRASE", "correct horse")
    assert signing.signer(None).name == "ci"


def test_the_only_key_signs_and_of_several_one_is_named(monkeypatch) -> None:
    with pytest.raises(Invalid, match="there is none"):
        signing.signer(None)
    one = writer("one")
    assert signing.signer(None).public == one.public
    pem = (trust_list.folder() / "keys" / "one.pem").read_text()
    two = writer("two")
    with pytest.raises(Invalid, match="there are 2: one, two"):
        signing.signer(None)
    assert signing.signer("two").public == two.public
    with pytest.raises(Invalid, match="no key 'three'"):
        signing.signer("three")
    with pytest.raises(Invalid, match="already"):
        signing.new("one", None)
    monkeypatch.setenv("TRTSTORE_SIGNING_KEY", pem)  # as CI has it
    assert signing.signer(None).public == one.public


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ed25519:",
        "rsa:" + base64.b64encode(bytes(32)).decode(),
        "ed25519:" + base64.b64encode(bytes(31)).decode(),
        "ed25519:" + base64.b64encode(bytes(32)).decode() + " model",
        "ed25519:" + base64.b64encode(bytes(32)).decode() + " model=",
        "ed25519:" + base64.b64encode(bytes(32)).decode() + " =x",
        "ed25519:" + base64.b64encode(bytes(32)).decode() + " model=a,,b",
    ],
)
def test_what_is_no_public_key_is_refused(line: str) -> None:
    with pytest.raises(Invalid):
        trust.parse(line)


def test_a_trusted_key_is_a_line_that_reads_back(tmp_path: Path) -> None:
    text = "ed25519:" + base64.b64encode(bytes(range(32))).decode() + " name=ci compiler=a,b* model=x"
    assert trust.parse(text).line() == text
    trust_list.save([trust.parse(text)])
    assert [one.line() for one in trust_list.listed()] == [text]
    assert tmp_path in trust_list.folder().parents


def test_who_signs_with_a_key_that_nobody_here_trusts_is_told_before_anything_is_sent(
    shared_folder: Place, tmp_path: Path
) -> None:
    signer = writer("ci")
    made = machine(tmp_path / "ci", shared_folder)
    make(made.store, tmp_path / "in")
    with pytest.raises(Invalid, match="is not trusted here") as caught:
        made.team().push(made.store, KEY, signer)
    assert signer.public in (caught.value.hint or "")
    assert list(shared_folder.folder.iterdir()) == []
