"""A key speaks only of what it may sign: records, revocations, the policy; and no line of trust is read in two ways."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.store.support import KEY, OTHER
from tests.team.support import LABELS, Machine, Place, User, believer, machine, make, user, writer
from trtstore import Store
from trtstore.errors import Invalid, Malformed, Untrusted
from trtstore.format import envelope, record, trust
from trtstore.format.digest import hash_bytes, hex_of
from trtstore.format.envelope import MAX_SIGNATURES, Envelope, Signature
from trtstore.format.trust import EVERYTHING, Role, Trusted
from trtstore.marks import revocations
from trtstore.marks.revocations import KeptRevocation, Revocation
from trtstore.remote.remote import record_name
from trtstore.team import gc, signing, trust_list
from trtstore.team import policy as teampolicy
from trtstore.team.signing import Signer

REVOKED = "v1/revoked/"
TOY = {"model": "toy"}


class Team:
    """CI, which may do everything; an intern who may sign for model=toy; what CI pushed, of llama-7b and of toy."""

    def __init__(self, place: Place, folder: Path, ci_roles: str = "publish,gc") -> None:
        self.place, self.folder = place, folder
        self.ci, self.intern = writer("ci"), writer("intern")
        self.lines = (
            f"{self.ci.public} name=ci role={ci_roles}",
            f"{self.intern.public} name=intern model=toy",
        )
        self.here = machine(folder / "ci", place, *self.lines)
        self.llama = make(self.here.store, folder / "llama")
        self.toy = make(self.here.store, folder / "toy", OTHER, {"own": b"toy"}, labels=TOY)
        for key in (KEY, OTHER):
            self.here.team().push(self.here.store, key, self.ci)

    def reader(self, name: str = "dev") -> Machine:
        return machine(self.folder / name, self.place, *self.lines)


@pytest.fixture
def team(shared_folder: Place, tmp_path: Path) -> Team:
    return Team(shared_folder, tmp_path)


def put_revocation(team: Team, digest: str, signer: Signer, name: str = "") -> None:
    """As somebody with another program puts it there."""
    data = signing.sign(revocations.statement(digest, f"by {signer.name}"), signer).encode()
    team.place.put(REVOKED + hex_of(digest) + name, data)


def test_a_revocation_counts_for_what_its_signer_may_sign_alone(team: Team) -> None:
    put_revocation(team, team.llama.manifest, team.intern)
    put_revocation(team, team.toy.manifest, team.intern)
    dev = team.reader()
    assert dev.pull(KEY) is not None
    assert dev.pull(OTHER) is None
    assert any("by intern" in told for told in dev.told)
    assert Store.open(dev.store.root).lookup(KEY) is not None  # in a later process, too


def test_a_revoked_file_goes_from_the_records_of_its_signers_scope_alone(team: Team) -> None:
    """Both artifacts hold it, and one of them is none of the intern's business."""
    shared = {"shared": b"the same in both"}
    for number, (key, labels) in enumerate((("33" * 32, LABELS), ("44" * 32, TOY))):
        make(
            team.here.store,
            team.folder / f"shared{number}",
            key,
            {**shared, "own": bytes([number])},
            labels=labels,
        )
        team.here.team().push(team.here.store, key, team.ci)
    put_revocation(team, f"sha256:{hash_bytes(shared['shared'])}", team.intern)
    dev = team.reader()
    assert dev.pull("33" * 32) is not None
    assert dev.pull("44" * 32) is None


def test_nobodys_revocation_hides_anothers(team: Team) -> None:
    """The intern has the name first, and the one of CI's signature, too."""
    digest = team.llama.manifest
    ci_name = f".{hash_bytes(trust.raw(team.ci.public))[:16]}"
    put_revocation(team, digest, team.intern)
    put_revocation(team, digest, team.intern, ci_name)
    early = team.reader("early")
    assert early.pull() is not None
    team.here.team().revoke(digest, "really", team.ci)
    assert team.reader("late").pull() is None
    early.team().sync()  # who took the intern's before learns of CI's, too
    assert early.store.lookup(KEY, on_problem=early.told.append) is None
    assert "really" in early.told[-1]


def test_two_who_learn_of_one_digest_at_once_keep_both(tmp_path: Path) -> None:
    layout = Store.open(tmp_path / "store")._layout
    toy = KeptRevocation(Revocation("ab" * 32, "by the intern", "today"), "one", ({"model": ("toy",)},), b"x")
    everything = KeptRevocation(Revocation("ab" * 32, "by ci", "today"), "two", (EVERYTHING,), b"y")
    revocations.keep(layout, [toy])
    assert revocations.of(layout, "ab" * 32, LABELS) is None
    assert revocations.of(layout, "ab" * 32, None) is None
    revocations.keep(layout, [everything])
    revocations.keep(layout, [toy])
    assert revocations.of(layout, "ab" * 32, LABELS) == everything.revocation
    assert revocations.of(layout, "ab" * 32, TOY) is not None
    assert {one.source for one in revocations.of_digest(layout, "ab" * 32)} == {"one", "two"}


@pytest.mark.parametrize("text", [b"", b"{}", b"nonsense", b'{"revocations":[],"schema":1}', b"[" * 100_000])
def test_what_cannot_be_read_in_the_folder_of_revocations_counts_for_everything(tmp_path: Path, text: bytes) -> None:
    layout = Store.open(tmp_path / "store")._layout
    layout.make(layout.revoked)
    (layout.revoked / ("ab" * 32)).write_bytes(text)
    assert "cannot be read" in str(revocations.of(layout, "ab" * 32, LABELS))


def test_a_revocation_of_an_earlier_release_counts_for_everything(team: Team) -> None:
    """It is the envelope itself, and was checked when it came."""
    data = signing.sign(revocations.statement(team.llama.manifest, "long ago"), team.ci).encode()
    layout = team.here.store._layout
    layout.make(layout.revoked)
    (layout.revoked / hex_of(team.llama.manifest)).write_bytes(data)
    assert "long ago" in str(revocations.of(layout, hex_of(team.llama.manifest), LABELS))


def test_a_key_without_publish_signs_no_record_and_revokes_all_with_revoke(team: Team) -> None:
    lines = (f"{team.ci.public} name=ci role=revoke", team.lines[1])
    off = machine(team.folder / "x", team.place, *lines)
    assert off.pull() is None
    assert any("is not trusted for records" in told for told in off.told)
    with pytest.raises(Invalid, match="is not trusted here for records"):
        off.team().check_signer(team.ci)
    nothing = (f"{team.ci.public} name=ci role=gc", team.lines[1])
    with pytest.raises(Invalid, match="is not trusted here to revoke") as caught:
        machine(team.folder / "y", team.place, *nothing).team().revoke(team.llama.manifest, "x", team.ci)
    assert "role=revoke,gc" in (caught.value.hint or "")


def test_who_may_not_sign_something_is_told_before_anything_is_sent(team: Team) -> None:
    dev, before = team.reader(), sorted(team.place.folder.rglob("*"))
    with pytest.raises(Invalid, match="may not sign what collectors go by") as caught:
        teampolicy.put(dev.team(), gc.RetentionPolicy(0, 0), team.intern)
    assert "role=publish,gc" in (caught.value.hint or "")
    with pytest.raises(Invalid, match="is not trusted here for model=llama-7b"):
        dev.team().revoke(team.llama.manifest, "x", team.intern, LABELS)
    elsewhere = team.reader("elsewhere")
    make(elsewhere.store, team.folder / "another", "55" * 32, {"x": b"other"})
    with pytest.raises(Invalid, match="is not trusted here for model=llama-7b"):
        elsewhere.team().push(elsewhere.store, "55" * 32, team.intern)
    assert sorted(team.place.folder.rglob("*")) == before


def test_a_policy_counts_only_by_a_key_that_may_sign_it(team: Team) -> None:
    said = teampolicy.statement(gc.RetentionPolicy(0, 0))
    team.place.put("v1/policy", signing.sign(said, team.intern).encode())
    with pytest.raises(Invalid, match="intern signed it, which has no role=gc") as caught:
        teampolicy.read(team.here.team())
    assert "role=publish,gc model=toy" in (caught.value.hint or "")


def test_an_older_policy_and_one_of_another_store_are_refused(team: Team, tmp_path: Path) -> None:
    here = team.here
    teampolicy.put(here.team(), gc.RetentionPolicy(500, 90), team.ci)
    old = team.place.get("v1/policy")
    teampolicy.put(here.team(), gc.RetentionPolicy(900, 90), team.ci)
    assert teampolicy.read(here.team()) == gc.RetentionPolicy(900, 90)
    team.place.put("v1/policy", old)
    with pytest.raises(Untrusted, match="is version 1, and version 2 was seen before"):
        teampolicy.read(here.team())
    before_versions = signing.sign(teampolicy.statement(gc.RetentionPolicy(0, 0)), team.ci).encode()
    team.place.put("v1/policy", before_versions)
    with pytest.raises(Untrusted, match="another series"):
        teampolicy.read(here.team())
    (tmp_path / "b").mkdir()
    other = machine(tmp_path / "z", Place((tmp_path / "b").as_uri(), folder=tmp_path / "b"), *team.lines)
    for size in range(4):
        teampolicy.put(other.team(), gc.RetentionPolicy(size, 1), team.ci)
    team.place.put("v1/policy", (tmp_path / "b" / "v1" / "policy").read_bytes())
    with pytest.raises(Untrusted, match="another series") as caught:
        teampolicy.read(here.team())
    assert "teams/" in (caught.value.hint or "")
    teampolicy.put(here.team(), gc.RetentionPolicy(7, 7), team.ci)  # who remembers goes on from there
    assert teampolicy.read(here.team()) == gc.RetentionPolicy(7, 7)


def test_what_one_document_says_no_other_can_stand_for(team: Team) -> None:
    """All are signed by one key."""
    digest = team.llama.manifest
    revocation = signing.sign(revocations.statement(digest, "x"), team.ci).encode()
    policy = signing.sign(teampolicy.statement(gc.RetentionPolicy(0, 0)), team.ci).encode()
    team.place.put("v1/policy", revocation)
    with pytest.raises(Invalid, match="the statement is no policy"):
        teampolicy.read(team.here.team())
    with pytest.raises(Malformed):
        revocations.parse(policy, hex_of(digest))
    with pytest.raises(Malformed):
        record.parse(policy, KEY)


# Lines of trust


def test_a_line_has_roles_and_reads_back(tmp_path: Path) -> None:
    public = writer("ci").public
    line = f"{public} name=ci role=publish,revoke,gc model=llama*"
    assert trust.parse(line).line() == line
    assert trust.parse(f"{public} role=gc,revoke").roles == (Role.revoke, Role.gc)
    assert trust.parse(public).roles == (Role.publish,)
    me = user(tmp_path / "me", Place((tmp_path / "no").as_uri()))
    assert me.trtstore("trust", "add", *line.split()).out == f"{line}\n"
    shown = me.trtstore("trust", "ls", "--json").json["trusted"][0]
    assert (shown["roles"], shown["scope"]) == (["publish", "revoke", "gc"], {"model": ["llama*"]})
    mine = me.trtstore("keys", "new", "mine").out.split()
    me.trtstore("trust", "add", *mine, "role=revoke")
    assert "trusted here: role=revoke" in me.trtstore("keys", "ls").out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("role=root", "is no role"),
        ("role=publish,", "is no scope"),
        ("model=a model=b", "given twice"),
        ("role=gc role=revoke", "given twice"),
        ("name=a name=b", "given twice"),
        ("name=ci\u202ekcatta", "is no name"),
        ("name=c\u200bi", "is no name"),
        ("model=" + "*a" * 200, "too long"),
        ("model=" + ",".join(["a"] * 300), "too long"),
    ],
)
def test_a_line_that_could_be_read_in_two_ways_is_refused(words: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        trust.parse(f"{writer('ci').public} {words}")


def test_a_key_that_anybody_can_sign_for_is_refused() -> None:
    """The neutral element as a public key: this signature is right for every message."""
    weak = bytes([1]) + bytes(31)
    Ed25519PublicKey.from_public_bytes(weak).verify(weak + bytes(32), b"whatever")
    with pytest.raises(Invalid, match="anybody can sign"):
        trust.parse(Trusted(f"ed25519:{_base64(weak)}").key)


def test_a_key_has_one_spelling() -> None:
    public = writer("ci").public
    other = public[:-2] + chr(ord(public[-2]) + 1) + "="  # stray bits, which a decoder lets pass
    with pytest.raises(Invalid, match="no public key"):
        trust.parse(other)


def _base64(data: bytes) -> str:
    return envelope.base64.b64encode(data).decode()


def test_a_scope_holds_no_record_that_lacks_the_label() -> None:
    assert trust.beyond({"model": ("*",)}, {}) == "what has no label model"
    assert trust.beyond({"model": ("*",)}, {"model": ""}) is None


def test_a_long_pattern_is_answered_at_once() -> None:
    pattern = "*a" * 100 + "b"
    assert trust.beyond({"model": (pattern,)}, {"model": "a" * 1024}) is not None


def test_a_record_full_of_signatures_can_still_be_signed(team: Team) -> None:
    unsigned = envelope.parse(team.here.store.envelope(KEY), record.MAX_BYTES, "it")
    filled = Envelope(unsigned.payload, tuple(Signature(f"{n:064x}", "AAAA") for n in range(MAX_SIGNATURES)))
    signed = signing.sign(filled, team.ci).encode()
    assert len(envelope.parse(signed, record.MAX_BYTES, "it").signatures) == MAX_SIGNATURES
    team.place.put(record_name(KEY), signed)
    assert team.reader().pull() is not None


def test_the_commands_say_for_what_a_revocation_counts(team: Team, tmp_path: Path) -> None:
    me: User = believer(tmp_path / "me", team.place, team.ci)
    me.trtstore("trust", "add", team.intern.public, "name=intern", "model=toy")
    pem = (trust_list.folder() / "keys" / "intern.pem").read_text()
    done = me.trtstore("revoke", team.llama.manifest, "--reason", "x", TRTSTORE_SIGNING_KEY=pem)
    assert done.code == 0, done.err
    assert "it counts for records with model=toy alone" in done.out
    assert me.trtstore("pull", KEY).code == 0
    refused = me.trtstore("revoke", KEY, "--reason", "x", TRTSTORE_SIGNING_KEY=pem)
    assert (refused.code, "role=publish,revoke" in refused.err) == (2, True), refused.err
    policy = me.trtstore("policy", "--max-size", "0", TRTSTORE_SIGNING_KEY=pem)
    assert (policy.code, "role=publish,gc" in policy.err) == (2, True), policy.err
