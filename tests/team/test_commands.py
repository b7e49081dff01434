"""`trtbuild` and `trtstore` with a team store, as users type them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.support import KEY, OTHER
from tests.support.seaweed import Seaweed
from tests.team.support import Place, User, as_ci, believer, make, user, writer
from trtstore.format import envelope
from trtstore.format import record as records
from trtstore.remote.remote import blob_name, record_name
from trtstore.team import gc, policy
from trtstore.team.signing import Signer


@pytest.fixture
def signer() -> Signer:
    return writer("ci")


@pytest.fixture
def ci(shared_folder: Place, tmp_path: Path, signer: Signer) -> User:
    """Has the private key in its environment, as CI has, and has pushed one artifact of two."""
    made = believer(tmp_path / "ci", shared_folder, signer, **as_ci())
    make(made.store, tmp_path / "in")
    make(made.store, tmp_path / "in2", OTHER, {"other.bin": b"other"}, labels={"model": "other"})
    pushed = made.trtstore("push", KEY[:8])
    assert pushed.code == 0, pushed.err
    assert pushed.out.startswith(f"{KEY} pushed")
    return made


@pytest.fixture
def dev(shared_folder: Place, tmp_path: Path, signer: Signer, ci: User) -> User:
    made = believer(tmp_path / "dev", shared_folder, signer)
    assert ci.project != made.project
    return made


def test_a_sweep_shares_what_it_builds_and_the_next_machine_s_builds_the_rest_alone(
    bucket: Place, seaweed: Seaweed, tmp_path: Path, tiny_llama: Path, signer: Signer
) -> None:
    trusted = f"store.trusted=['{signer.public} name=ci']"
    words = ["-m", f"model.source={tiny_llama}", "check=none", trusted, "output=json"]
    builder = user(tmp_path / "ci", bucket, **as_ci())
    built = builder.trtbuild(*words, "quant=none,int8", "store.write=true")
    assert built.code == 0, built.err
    assert [each["outcome"] for each in built.json["results"]] == ["built", "built"]

    reader = user(tmp_path / "dev", bucket, **seaweed.credentials("reader"))
    more = [*words, "quant=none,int8,int4"]
    forecast = reader.trtbuild("plan", *more).json["forecast"]
    assert forecast["hits"] == {"local": 0, "also": {bucket.url: 2}}
    assert [step["name"] for step in forecast["steps"]] == ["engine"]
    done = reader.trtbuild(*more)
    assert done.code == 0, done.err
    assert [each["outcome"] for each in done.json["results"]] == ["hit-team", "hit-team", "built"]
    digests = [each["digest"] for each in done.json["results"]]
    assert digests[:2] == [each["digest"] for each in built.json["results"]]
    again = reader.trtbuild("fetch", *more)
    assert [each["outcome"] for each in again.json["results"]] == ["hit-local"] * 3


def test_ci_builds_and_a_reader_has_it_signed(
    bucket: Place, seaweed: Seaweed, tmp_path: Path, tiny_llama: Path, signer: Signer
) -> None:
    words = [
        f"model.source={tiny_llama}",
        "quant=int8",
        "check=none",
        f"store.trusted=['{signer.public} name=ci']",
    ]
    builder = user(tmp_path / "ci", bucket, **as_ci())
    built = builder.trtbuild(*words, "store.write=true", "output=json")
    assert built.code == 0, built.err
    assert "engine   shared" in built.err
    assert signer.public not in built.out
    assert "PRIVATE" not in built.out + built.err

    reader = user(tmp_path / "dev", bucket, **seaweed.credentials("reader"))
    planned = reader.trtbuild("plan", *words)
    assert f"hit in {bucket.url}" in planned.out
    fetched = reader.trtbuild("fetch", *words, "output=json")
    assert fetched.code == 0, fetched.err
    assert fetched.json["outcome"] == "hit-team"
    assert fetched.json["digest"] == built.json["digest"]
    assert "signed by ci, every byte verified" in fetched.err
    kept = envelope.parse(reader.store.envelope(fetched.json["key"]), records.MAX_BYTES, "it")
    assert len(kept.signatures) == 1

    # And a hit of what is here already loads nothing of what a team store takes.
    code = f"import sys; from trtbuild.cli import main; main.main({words!r}); print('obstore' in sys.modules)"
    environment = reader.project.environment(reader.environment)
    hit = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "hit-local" in hit.stderr
    assert hit.stdout.splitlines()[-1] == "False"

    # What is revoked is refused where it was fetched, once the team was asked again: here as if minutes had passed.
    assert builder.trtstore("trust", "add", signer.public).code == 0
    assert builder.trtstore("revoke", built.json["key"][:12], "--reason", "wrong scales").code == 0
    shutil.rmtree(reader.project.store / "v1" / "index")
    gone = reader.trtbuild("fetch", *words)
    assert (gone.code, "wrong scales" in gone.err) == (4, True), gone.err
    built = builder.trtbuild(*words, "quant=int4", "store.write=true", "output=json")
    assert built.code == 0, built.err

    # What the team built is what is compared with, where nothing was built before.
    fresh = user(tmp_path / "fresh", bucket)
    near = fresh.trtbuild("explain", *words)
    assert f"The nearest is {built.json['key'][:12]} (llama, int4, cpu) in {bucket.url}" in near.out, near.out

    # Whose key nobody trusts builds himself, and is told why.
    alone = user(tmp_path / "alone", bucket)
    missed = alone.trtbuild("fetch", *words[:3])
    assert missed.code == 4
    assert "no key is trusted" in missed.err
    assert "trtstore trust add" in missed.err

    # A writer who may not write is told before anything is built.
    other = user(tmp_path / "other", bucket, **as_ci(), **seaweed.credentials("reader"))
    early = other.trtbuild(*words, "quant=none", "store.write=true")
    assert early.code == 4
    assert "store.write" in early.err
    assert "refuses to be written to" in early.err
    assert "building" not in early.err


def test_without_a_network_it_is_built_here_and_shared_later(
    bucket: Place, tmp_path: Path, tiny_llama: Path, signer: Signer
) -> None:
    words = [
        f"model.source={tiny_llama}",
        "check=none",
        "until=network",
        f"store.trusted=['{signer.public}']",
    ]
    builder = user(tmp_path / "ci", bucket, **as_ci())
    cut = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    built = builder.trtbuild(*words, "store.write=true", "output=json", **cut)
    assert built.code == 0, built.err
    assert built.json["outcome"] == "built"
    assert "going on without the team store" in built.err
    assert "trtstore push --pending" in built.err
    assert not bucket.has(record_name(built.json["key"]))
    missed = builder.trtbuild("fetch", *words, "model.dtype=float32", "store.root=elsewhere", **cut)
    assert missed.code == 4, missed.err  # it may be there after all
    assert builder.trtstore("trust", "add", signer.public).code == 0
    assert "pushed" in builder.trtstore("push", "--pending").out
    assert bucket.has(record_name(built.json["key"]))
    assert builder.trtstore("push", "--pending").out == "nothing waits to be pushed\n"


def test_what_is_wrong_is_told_once_and_what_is_refused_is_no_absence(
    shared_folder: Place, tmp_path: Path, tiny_llama: Path, signer: Signer
) -> None:
    words = [
        f"model.source={tiny_llama}",
        "check=none",
        "until=network",
        f"store.trusted=['{signer.public} name=ci role=publish,revoke']",
    ]
    builder = user(tmp_path / "ci", shared_folder, **as_ci())
    built = builder.trtbuild(*words, "store.write=true", "output=json")
    assert built.code == 0, built.err
    assert built.err.count("has no list of revocations") == 1
    assert "is empty, and has no list of revocations yet; sign one" in built.err  # nothing is wrong
    assert "hiding" not in built.err

    reader = user(tmp_path / "dev", shared_folder)
    early = reader.trtbuild("fetch", *words)
    assert (early.code, early.err.count("has no list of revocations")) == (4, 1), early.err
    assert "hiding" in early.err  # there is something, and no list
    assert builder.trtstore("trust", "add", signer.public, "role=publish,revoke").code == 0
    assert builder.trtstore("revoke", "--refresh").code == 0

    record = builder.store.lookup(built.json["key"])
    assert record is not None
    entry = builder.store.manifest(record).entries[0]
    blob = shared_folder.folder / blob_name(entry.sha256)
    good = blob.read_bytes()
    blob.unlink()
    os.mkfifo(blob)
    refused = reader.trtbuild("fetch", *words)
    assert (refused.code, refused.err.count("no regular file")) == (4, 1), refused.err
    assert record.key[:12] in refused.err
    blob.unlink()
    blob.write_bytes(good)
    assert reader.trtbuild("fetch", *words).code == 0

    def spoil() -> None:
        kept = reader.project.store / record_name(record.key)
        kept.chmod(0o644)
        kept.write_bytes(b"{")

    trusting = ["--trusted", f"{signer.public} role=publish,revoke"]
    for run, given in (
        (reader.trtbuild, ["plan", *words]),
        (reader.trtbuild, words),
        (reader.trtstore, ["pull", record.key, *trusting]),
    ):
        spoil()
        done = run(*given)
        assert done.code == 0, done.err
        assert done.err.count("is taken as absent") == 1, done.err


def test_the_keys_and_the_list_of_one_user(tmp_path: Path, shared_folder: Place) -> None:
    me = user(tmp_path / "me", shared_folder)
    made = me.trtstore("keys", "new", "mine")
    assert made.out.count("\n") == 1
    line = made.out.strip()
    assert line.endswith("name=mine")
    assert me.trtstore("keys", "ls").out == made.out
    assert me.trtstore("keys", "new", "mine").code == 2
    assert me.trtstore("trust", "add", *line.split(), "model=llama*").out == f"{line} model=llama*\n"
    assert me.trtstore("trust", "ls", "--json").json["trusted"][0]["scope"] == {"model": ["llama*"]}
    assert me.trtstore("trust", "rm", "nobody").code == 3
    assert me.trtstore("trust", "rm", "mine").out == ""
    for words in (
        ["keys", "new"],
        ["keys"],
        ["trust", "add"],
        ["trust", "add", "x"],
        ["keys", "new", "../x"],
    ):
        done = me.trtstore(*words)
        assert done.code == 2, words
        assert "Traceback" not in done.err


def test_what_is_there_is_listed_counted_and_verified(ci: User, dev: User, shared_folder: Place) -> None:
    assert KEY[:12] in dev.trtstore("ls", "--team").out
    assert dev.trtstore("ls", "model=nothing", "--team", shared_folder.url).out == ""
    assert dev.trtstore("ls", "--team", "--json").json["records"][0]["key"] == KEY
    stats = dev.trtstore("stats", "--team", "--json").json
    assert (stats["artifacts"], stats["by"][""]["artifacts"]) == (1, 1)
    assert dev.trtstore("verify", "--team").code == 0
    digits = ci.store.manifest(ci.store.lookup(KEY)).entries[0].sha256
    blob = f"v1/blobs/sha256/{digits[:2]}/{digits}"
    good = shared_folder.get(blob)
    shared_folder.put(blob, b"X" * len(good))
    assert dev.trtstore("verify", "--team", "--quick").code == 0
    bad = dev.trtstore("verify", "--team")
    assert (bad.code, digits[:12] in bad.out) == (4, True)
    shared_folder.put(blob, good[:-1])
    assert dev.trtstore("verify", "--team", "--quick").code == 4


def test_pull_takes_what_is_named_and_says_what_it_did(ci: User, dev: User) -> None:
    assert dev.trtstore("pull", "ab" * 32).code == 4
    assert dev.trtstore("pull", "0000").code == 3
    assert dev.trtstore("pull").code == 2
    assert dev.trtstore("pull", KEY[:6]).out == f"{KEY} new\n"
    assert dev.trtstore("pull", "--all").out == f"{KEY} was here\n"
    assert ci.trtstore("push", "model=other").code == 0
    assert dev.trtstore("pull", "model=other").out == f"{OTHER} new\n"


def test_a_revocation_reaches_who_has_it_and_names_his_links(ci: User, dev: User) -> None:
    dev.trtstore("pull", KEY)
    link = dev.project.root / "engine"
    dev.store.add_root(link, dev.store.lookup(KEY))
    done = ci.trtstore("revoke", KEY[:8], "--reason", "wrong scales")
    assert done.code == 0, done.err
    assert "wrong scales" in done.out
    assert dev.trtstore("ls", "--affected").out == "nothing that is here was revoked\n"
    assert dev.trtstore("pull", KEY).code == 4
    affected = dev.trtstore("ls", "--affected")
    assert affected.code == 4
    assert "wrong scales" in affected.out
    assert str(link) in affected.out
    assert dev.trtstore("path", KEY).code == 3
    assert ci.trtstore("push", KEY).code != 0
    assert ci.trtstore("revoke", "sha256:12", "--reason", "x").code == 2
    assert ci.trtstore("revoke", KEY[:8]).code == 2


def test_a_mirror_has_the_same_bytes_and_signatures(ci: User, dev: User, shared_folder, tmp_path) -> None:
    (tmp_path / "mirror").mkdir()
    target = (tmp_path / "mirror").as_uri()
    first = dev.trtstore("mirror", shared_folder.url, target)
    assert first.out.startswith("1 new"), first.err
    assert dev.trtstore("mirror", shared_folder.url, target).out.startswith("0 new")
    assert (tmp_path / "mirror" / record_name(KEY)).read_bytes() == shared_folder.get(record_name(KEY))
    assert dev.trtstore("pull", KEY, "--team", target).code == 0
    shared_folder.put(record_name(OTHER), ci.store.envelope(OTHER))  # nobody signed it
    assert dev.trtstore("mirror", shared_folder.url, target).code == 4
    assert not (tmp_path / "mirror" / record_name(OTHER)).exists()


def test_what_goes_from_a_team_store_a_signed_policy_says(ci: User, dev: User, shared_folder: Place) -> None:
    assert "has no policy" in ci.trtstore("gc", "--team").err
    assert ci.trtstore("push", "--all").code == 0
    assert dev.trtstore("policy", "--max-size", "1GB").code == 2  # has no key
    made = ci.trtstore("policy", "--max-size", "10", "--keep", "90d")
    assert made.out == f"{shared_folder.url}: 10 B at most, kept for 90 days\n", made.err
    dry = ci.trtstore("gc", "--team", "--dry-run")
    assert f"record  {KEY[:12]}" in dry.out
    assert shared_folder.has(record_name(KEY))
    done = ci.trtstore("gc", "--team", "--json").json
    assert KEY in [one["name"] for one in done["gone"] if one["kind"] == "record"]
    assert not [one for one in done["gone"] if one["kind"] == "blob"]  # a push may be on its way
    assert not shared_folder.has(record_name(KEY))
    signed = envelope.parse(shared_folder.get("v1/policy"), policy.MAX_BYTES, "it").signatures
    forged = envelope.Envelope(policy.statement(gc.RetentionPolicy(None, 1)).payload, signed)
    shared_folder.put("v1/policy", forged.encode())
    assert ci.trtstore("gc", "--team").code == 2


def test_bad_words_are_one_error(ci: User) -> None:
    for words in (
        ["push"],
        ["push", "--team", "http://x", KEY],
        ["ls", "--team", "model=x"],
        ["gc", "--team", "--max-size", "1GB"],
        ["push", KEY, "--trusted", "nonsense"],
        ["policy", "--keep", "soon"],
    ):
        done = ci.trtstore(*words)
        assert done.code in (2, 4), words
        assert done.err.startswith("error: "), done.err
        assert "Traceback" not in done.err
    assert json.loads(ci.trtstore("push", "--json").out)["error"]["exit_code"] == 2


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("store.team=s3://user:secret@bucket", "store.team"),
        ("store.write=true", "store.key"),
        ("store.heartbeat=0", "store.heartbeat"),
    ],
)
def test_bad_options_are_one_error(tmp_path, shared_folder, tiny_llama, option, says) -> None:
    me = user(tmp_path / "me", shared_folder)
    done = me.trtbuild(f"model.source={tiny_llama}", option)
    assert done.code == 2, done.err
    assert says in done.err
    assert "hint: " in done.err or "secret" not in done.err
    assert "Traceback" not in done.err
    assert not me.project.records()
