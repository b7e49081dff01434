"""A bundle is judged as a team store is, and what came on a user's word alone is marked, used, and never signed."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from tests.store.support import FILES, KEY, OTHER, leftovers, read_tree
from tests.support import tiny
from tests.team.support import LABELS, Place, User, as_ci, believer, machine, make, user, writer
from trtstore import Store
from trtstore.errors import StoreFailure, Untrusted
from trtstore.exchange import bundle
from trtstore.format.digest import hex_of
from trtstore.format.trust import TrustPolicy
from trtstore.marks import doubts, revocations
from trtstore.marks.doubts import Doubt
from trtstore.remote.remote import record_name
from trtstore.team import open, signing
from trtstore.transfer.readonly import ReadOnly
from trtstore.upkeep.maintenance import Maintenance


@pytest.fixture
def maker(shared_folder: Place, tmp_path: Path) -> User:
    """Has two artifacts and a key; what is exported with the key is signed."""
    made = user(tmp_path / "maker", shared_folder, **as_ci_of("ci"))
    make(made.store, tmp_path / "in")
    make(made.store, tmp_path / "in2", OTHER, {**FILES, "own": b"x"}, labels={"model": "toy"})
    return made


def as_ci_of(name: str) -> dict[str, str]:
    writer(name)
    return as_ci()


@pytest.fixture
def site(shared_folder: Place, tmp_path: Path, maker: User) -> User:
    """Trusts the key of the maker."""
    assert maker.project.root.is_dir()
    return believer(tmp_path / "site", shared_folder, signing.signer("ci"))


def exported(maker: User, *words: str) -> str:
    """A file with both artifacts; `--key ci` signs them."""
    config = {"TRTSTORE_CONFIG": str(Path(maker.environment["TRTSTORE_CONFIG"]).parents[1] / "config")}
    file = str(maker.project.root / "engines.tar")
    done = maker.trtstore("export", "--all", "-o", file, *words, **config)
    assert done.code == 0, done.err
    return file


def test_what_nobody_signed_is_refused_with_the_count_and_the_way_out(maker: User, site: User) -> None:
    done = site.trtstore("import", exported(maker))
    assert done.code == 4
    assert "0 new, 0 were here, 2 refused" in done.err
    assert "nobody signed it" in done.err
    assert "--trust-unsigned" in done.err
    assert "export --key" in done.err
    assert read_tree(site.project.store / "v1").keys() <= {"locks/tmp"}
    assert leftovers(site.project.store) == []


def test_what_a_trusted_key_signed_comes_in_and_goes_on(maker: User, site: User, shared_folder: Place) -> None:
    assert site.trtstore("import", exported(maker, "--key", "ci")).code == 0
    assert not doubts.found(site.store._layout)
    assert site.trtstore("push", KEY, **as_ci()).code == 0
    assert shared_folder.has(record_name(KEY))


def test_a_key_counts_within_its_scope_and_the_blobs_that_groups_share_come_all_the_same(
    maker: User, shared_folder: Place, tmp_path: Path
) -> None:
    """The first group of the bundle has blobs that the second one needs, and is refused."""
    file, public = exported(maker, "--key", "ci"), signing.signer("ci").public
    first, second = sorted((KEY, OTHER))
    model = LABELS["model"] if second == KEY else "toy"
    me = user(tmp_path / "me", shared_folder)
    done = me.trtstore("import", file, "--trusted", f"{public} name=ci model={model}", "--json")
    assert done.code == 4
    assert [one["key"] for one in done.json["artifacts"]] == [second]
    assert [one["key"] for one in done.json["refused"]] == [first]
    assert list(me.store.keys()) == [second]
    names = {entry.sha256 for entry in me.store.manifest(me.store.lookup(second)).entries}
    kept = {path.name for path in me.store._layout.blobs.rglob("*") if path.is_file()}
    assert kept == {*names, hex_of(me.store.lookup(second).manifest)}  # and nothing of what was refused


def test_on_a_users_word_it_is_taken_marked_and_never_signed(maker: User, site: User, shared_folder: Place) -> None:
    taken = site.trtstore("import", exported(maker), "--trust-unsigned")
    assert taken.code == 0
    assert "2 came unsigned" in taken.err
    assert "came unsigned from engines.tar" in site.trtstore("show", KEY).out
    assert site.trtstore("show", KEY, "--json").json["doubt"] == "came unsigned from engines.tar"
    assert site.trtstore("ls").out.count("doubted") == 2
    assert [one["doubted"] for one in site.trtstore("ls", "--json").json["records"]] == [True, True]
    for words in (["push", KEY], ["push", "--all"]):
        refused = site.trtstore(*words, **as_ci())
        assert (refused.code, "built" in refused.err) == (4, True), refused.err
    assert not shared_folder.has(record_name(KEY))
    with pytest.raises(Untrusted, match="came unsigned"):
        machine(site.project.store, shared_folder, signing.signer("ci").public).team().push(
            site.store, KEY, signing.signer("ci")
        )
    again = str(site.project.root / "again.tar")
    done = site.trtstore("export", KEY, "-o", again, "--key", "ci", TRTSTORE_CONFIG=str(_config(maker)))
    assert "does not sign it" in done.err
    assert site.trtstore("import", again).code == 4


def _config(maker: User) -> Path:
    return Path(maker.environment["TRTSTORE_CONFIG"]).parents[1] / "config"


def test_what_comes_again_signed_takes_the_place_of_what_was_marked(maker: User, site: User, tmp_path: Path) -> None:
    other = Store.open(tmp_path / "evil")
    make(other, tmp_path / "evil-in", KEY, {"engine.bin": b"something else"})
    bundle.export_file(other, [KEY], tmp_path / "evil.tar")
    assert site.trtstore("import", str(tmp_path / "evil.tar"), "--trust-unsigned").code == 0
    was = site.store.lookup(KEY)
    assert site.trtstore("import", exported(maker), "--trust-unsigned").code == 0
    assert site.store.lookup(KEY) == was  # the first of two that are both doubted
    assert site.trtstore("import", exported(maker, "--key", "ci")).code == 0
    assert site.store.lookup(KEY).manifest == maker.store.lookup(KEY).manifest
    assert not doubts.found(site.store._layout)


def test_a_mark_never_comes_to_what_was_built_here(maker: User, site: User, tmp_path: Path) -> None:
    mine = make(site.store, tmp_path / "mine", KEY, {"engine.bin": b"mine"})
    assert site.trtstore("import", exported(maker), "--trust-unsigned").code == 0
    assert site.store.lookup(KEY) == mine
    assert doubts.found(site.store._layout) == {OTHER}


def test_what_is_built_again_has_no_mark_and_a_collection_takes_marks_away(
    maker: User, site: User, tmp_path: Path
) -> None:
    assert site.trtstore("import", exported(maker), "--trust-unsigned").code == 0
    make(site.store, tmp_path / "mine", KEY, {"engine.bin": b"mine"})
    assert site.store.doubt(KEY) is None
    assert site.store.blob_path(site.store.manifest(site.store.lookup(KEY)).digest) is not None
    doubts.mark(site.store._layout, "99" * 32, Doubt("a kill before the record"))
    Maintenance(site.store).collect(0, grace=0)
    assert site.store.lookup(OTHER, on_problem=lambda _: None) is None
    assert not doubts.found(site.store._layout)


def test_what_was_revoked_is_refused_whatever_a_user_says(maker: User, site: User) -> None:
    digest = maker.store.lookup(KEY).manifest
    revocations.keep(
        site.store._layout,
        [revocations.KeptRevocation(revocations.Revocation(hex_of(digest), "bad", "today"), "x", ({},))],
    )
    done = site.trtstore("import", exported(maker, "--key", "ci"), "--trust-unsigned")
    assert (done.code, "was revoked" in done.err) == (4, True), done.err
    assert list(site.store.keys()) == [OTHER]


def test_a_library_that_judges_nothing_believes_nothing(maker: User, tmp_path: Path) -> None:
    file = io.BytesIO()
    bundle.export_to(maker.store, [KEY], file)
    mine = Store.open(tmp_path / "mine")
    assert list(bundle.import_from(mine, io.BytesIO(file.getvalue())))
    assert mine.doubt(KEY).unsigned


def test_what_is_taken_with_warn_or_off_is_marked_and_other_stores_marks_come_along(
    maker: User, shared_folder: Place, tmp_path: Path
) -> None:
    shared_folder.put(record_name(KEY), maker.store.envelope(KEY))
    for entry in [maker.store.lookup(KEY).manifest, *_blobs(maker.store)]:
        digits = hex_of(entry)
        shared_folder.put(f"v1/blobs/sha256/{digits[:2]}/{digits}", maker.store.blob_path(entry).read_bytes())
    for policy in (TrustPolicy.warn, TrustPolicy.off):
        dev = machine(tmp_path / policy.value, shared_folder, signing.signer("ci").public, policy=policy)
        assert dev.pull() is not None
        assert dev.store.doubt(KEY).unsigned
        assert ReadOnly.open(dev.store.root).doubt(KEY) == dev.store.doubt(KEY)
        with pytest.raises(StoreFailure, match="it is not signed here"):
            dev.team().push(dev.store, KEY, signing.signer("ci"))


def _blobs(store: Store) -> list[str]:
    return [f"sha256:{entry.sha256}" for entry in store.manifest(store.lookup(KEY)).entries]


def test_a_narrow_signature_is_remembered_and_not_widened(maker: User, shared_folder: Place, tmp_path: Path) -> None:
    """Pulled by its key, nobody said for which model: CI's wide key must not sign it as its own."""
    intern = writer("intern")
    lines = (signing.signer("ci").public, f"{intern.public} name=intern model=toy")
    machine(maker.project.store, shared_folder, *lines).team().push(maker.store, OTHER, intern)
    ci = machine(tmp_path / "ci2", shared_folder, *lines)
    assert ci.pull(OTHER) is not None
    doubt = ci.store.doubt(OTHER)
    assert not doubt.unsigned
    assert doubt.admits({"model": "toy"})
    assert not doubt.admits(LABELS)
    shared_folder.remove(record_name(OTHER))
    with pytest.raises(Untrusted, match="not signed here"):
        ci.team().push(ci.store, OTHER, signing.signer("ci"))
    asked = machine(tmp_path / "dev2", shared_folder, *lines)
    assert asked.team().judge.strict is False


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"schema":2}', b"\xff" * 100, b"[" * 100_000])
def test_a_mark_that_cannot_be_read_is_a_mark(tmp_path: Path, text: bytes) -> None:
    store = Store.open(tmp_path / "store")
    make(store, tmp_path / "in")
    store._layout.make(store._layout.doubts)
    (store._layout.doubts / KEY).write_bytes(text)
    assert store.doubt(KEY).unsigned


def test_where_a_file_comes_from_is_shown_as_it_is(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    doubts.mark(store._layout, KEY, Doubt("evil\u202e\u001b[2Jrat.tar"))
    assert str(store.doubt(KEY)) == "came unsigned from evil\\u202e\\x1b[2Jrat.tar"
    judge = open.judge("x", store._layout, TrustPolicy.require, [], print)
    assert judge.trusted == ()


def test_a_build_uses_what_a_user_took_says_so_and_marks_what_it_makes_of_it(
    shared_folder: Place, tmp_path: Path, tiny_llama: Path
) -> None:
    writer("ci")
    words = [f"model.source={tiny_llama}", "quant=int8", "check=none", "output=json"]
    maker = user(tmp_path / "maker", shared_folder, TRTBUILD_TEAM="")
    assert maker.trtbuild(*words).code == 0
    file = str(tmp_path / "n.tar")
    assert maker.trtstore("export", "step=network", "-o", file).code == 0
    ci = believer(tmp_path / "ci", shared_folder, signing.signer("ci"), **as_ci())
    assert ci.trtstore("import", file, "--trust-unsigned").code == 0
    built = ci.trtbuild(*words, "store.write=true")
    assert built.code == 0, built.err
    assert "network: came unsigned from n.tar, and is used all the same" in built.err
    assert "engine: not shared: it came unsigned from n.tar (network, from which it was built)" in built.err
    key = built.json["key"]
    assert ci.store.doubt(key).unsigned
    assert not shared_folder.has(record_name(key))
    assert "came unsigned" in ci.trtbuild("fetch", *words).err  # a hit of the local store tells it, too

    again = ci.trtbuild(*words, "refresh=true", "store.write=true")
    assert again.code == 0, again.err
    assert "network: built again, the same bytes as in the store, which keeps this one" in again.err
    assert "engine   shared" in again.err
    assert not doubts.found(ci.store._layout)
    assert shared_folder.has(record_name(key))


def test_an_engine_that_a_narrow_key_brought_here_is_not_used_for_another_model(
    shared_folder: Place, tmp_path: Path, tiny_llama: Path
) -> None:
    """The record calls itself toy, and lies under the key of another model's engine."""
    intern = writer("intern")
    words = [f"model.source={tiny_llama}", "quant=int8", "check=none", "output=json"]
    victim = user(tmp_path / "victim", shared_folder)
    victim.trtstore("trust", "add", intern.public, "name=intern", "model=toy")
    key = json.loads(victim.trtbuild("plan", *words).out)["steps"][-1]["key"]
    evil = Store.open(tmp_path / "evil", durability="fast")
    make(evil, tmp_path / "evil-in", key, {"model.onnx": b"EVIL"}, labels={"model": "toy", "step": "engine"})
    lines = (f"{intern.public} name=intern model=toy",)
    machine(tmp_path / "evil", shared_folder, *lines).team().push(evil, key, intern)
    assert victim.trtstore("pull", key).code == 0
    done = victim.trtbuild(*words)
    assert done.code == 0, done.err
    assert "it is not used for this" in done.err
    assert done.json["outcome"] == "built"
    assert (Path(done.json["path"]) / "model.onnx").read_bytes() != b"EVIL"
    assert not doubts.found(victim.store._layout)
    shutil.rmtree(tmp_path / "evil")


def test_what_a_narrow_key_brought_for_its_own_model_is_not_widened_by_a_build(
    shared_folder: Place, tmp_path: Path, tiny_llama: Path
) -> None:
    """Two names of one checkpoint have one key: what the key of `toy` signed must not reach the other by CI's hands."""
    intern, ci_key = writer("intern"), writer("ci")
    shutil.copytree(tiny_llama, tmp_path / "toy")
    tiny.write_model(tmp_path / "other", seed=7)
    words = ["quant=int8", "check=none", "output=json"]
    toy, good = f"model.source={tmp_path / 'toy'}", f"model.source={tiny_llama}"

    evil = user(tmp_path / "evil", shared_folder, TRTBUILD_TEAM="")
    wrong = evil.trtbuild(f"model.source={tmp_path / 'other'}", "until=network", *words).json["path"]
    key = evil.trtbuild("plan", toy, *words).json["steps"][0]["key"]
    files = {path.name: path.read_bytes() for path in Path(wrong).iterdir()}
    make(evil.store, tmp_path / "evil-in", key, files, labels={"model": "toy", "step": "network"})
    lines = (f"{intern.public} name=intern model=toy",)
    machine(evil.project.store, shared_folder, *lines).team().push(evil.store, key, intern)

    ci = believer(tmp_path / "ci", shared_folder, ci_key, **as_ci())
    ci.trtstore("trust", "add", intern.public, "name=intern", "model=toy")
    done = ci.trtbuild(toy, *words, "store.write=true")
    assert done.code == 0, done.err
    assert "signed by intern" in done.err
    assert "(network, from which it was built), signed for model=toy alone, and" in done.err
    done = ci.trtbuild(good, *words, "store.write=true")
    assert done.code == 0, done.err
    assert [step["outcome"] for step in done.json["steps"]] == ["built", "built"]
    honest = user(tmp_path / "honest", shared_folder, TRTBUILD_TEAM="").trtbuild(good, *words).json["digest"]
    dev = believer(tmp_path / "dev", shared_folder, ci_key)
    assert dev.trtbuild("fetch", good, *words).json["digest"] == honest


def test_a_key_may_sign_what_came_by_its_own_scope(shared_folder: Place, tmp_path: Path) -> None:
    """A team whose writers have a scope each: what one of them fetched and built upon goes on being theirs."""
    narrow = writer("narrow")
    line = f"{narrow.public} name=narrow model=toy"
    first = machine(tmp_path / "first", shared_folder, line)
    make(first.store, tmp_path / "in", OTHER, labels={"model": "toy"})
    first.team().push(first.store, OTHER, narrow)
    second = machine(tmp_path / "second", shared_folder, line)
    assert second.pull(OTHER) is not None
    shared_folder.remove(record_name(OTHER))
    assert second.team().push(second.store, OTHER, narrow).new


@pytest.mark.parametrize(
    ("there", "new", "gives_way"),
    [
        (None, None, False),
        (None, Doubt("x"), False),
        (Doubt("x"), None, True),
        (Doubt("x"), Doubt("y"), False),
        (Doubt("x"), Doubt("y", ({"model": ("toy",)},)), True),
        (Doubt("x", ({"model": ("toy",)},)), Doubt("y"), False),
        (Doubt("x", ({"model": ("toy",)},)), Doubt("y", ({"model": ("toy",)},)), False),
        (Doubt("x", ({"model": ("toy",)},)), Doubt("y", ({"model": ("llama",)},)), True),
    ],
)
def test_what_is_doubted_gives_way_to_a_better_or_another_word(
    there: Doubt | None, new: Doubt | None, gives_way: bool
) -> None:
    assert doubts.gives_way(there, new) is gives_way


def test_what_is_revoked_is_left_out_and_keeps_nothing_else_back(maker: User) -> None:
    """Else whoever may revoke something of their own could keep all of CI's from being exported and pushed."""
    config = {"TRTSTORE_CONFIG": str(Path(maker.environment["TRTSTORE_CONFIG"]).parents[1] / "config")}
    key = signing.signer("ci").public
    assert maker.trtstore("trust", "add", key, "name=ci", **config).code == 0
    manifest = maker.store.lookup(OTHER).manifest
    assert maker.trtstore("revoke", manifest, "--reason", "x", "--key", "ci", **config).code == 0
    file = maker.project.root / "rest.tar"
    done = maker.trtstore("export", "--all", "-o", str(file), **config)
    assert (done.code, file.exists()) == (4, True)
    assert "1 that cannot be used were left out" in done.err
    done = maker.trtstore("push", "--all", "--key", "ci", **config)
    assert done.code == 4
    assert f"{KEY} pushed" in done.out
    assert "was revoked" in done.err
