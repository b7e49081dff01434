"""The Hub, through its real client against a server of our own."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.sources.conftest import Client
from tests.sources.samples import PlainDigester, checkpoint, gguf, safetensors, sharded, vocabulary, write
from tests.support import minihub
from tests.support.minihub import MiniHub, Refusal
from trtbuild.sources import identity, open_source

REPO = "org/name"
SOURCE = f"hf://{REPO}"
TOKEN, ACCEPTED, EXPIRED = "hf_secret", "hf_accepted", "hf_expired"


def assert_refused(answer: dict[str, Any], *words: str) -> None:
    assert answer.get("error") == "InputError", answer
    assert answer["option"].startswith("model."), answer
    assert answer["hint"], answer
    said = f"{answer['message']}\n{answer['hint']}"
    for word in words:
        assert word in said, f"{word!r} is not in: {said}"
    assert TOKEN not in said


def test_identity_needs_no_weight_and_equals_the_folder_s(hub: MiniHub, client: Client) -> None:
    commit = hub.add(REPO, checkpoint())
    seen = client.look(SOURCE)
    folder = open_source(str(write(client.home / "copy", checkpoint())), revision=None, digester=PlainDigester())
    assert seen["identity"] == identity(folder.files())
    assert seen["describe"] == f"hf://{REPO}@{commit}"
    assert seen["config"] == folder.config()
    assert seen["architecture"] is None
    assert [file["path"] for file in seen["files"]] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert hub.sent(".safetensors") == 0
    assert hub.sent("README.md") + hub.sent(".bin") == 0
    assert len([one for one in hub.log if one.path.startswith("/api/models")]) == 1


def test_fetch_gives_verified_files_and_tells_progress(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, sharded(3))
    seen = client.fetch(SOURCE)
    for file in seen["files"]:
        assert hashlib.sha256(Path(seen["paths"][file["path"]]).read_bytes()).hexdigest() == file["sha256"]
    assert list(Path(client.home / "keep").iterdir()) == []  # they are in the Hub's own cache
    shard = "model-00002-of-00003.safetensors"
    told = [(done, total) for what, done, total in seen["progress"] if what == shard]
    size = len(sharded(3)[shard])
    assert told[-1] == (size, size)
    sent = hub.sent(".safetensors")
    assert client.fetch(SOURCE)["identity"] == seen["identity"]
    assert hub.sent(".safetensors") == sent  # nothing is downloaded twice


def test_what_is_large_is_verified_side_by_side_and_nothing_twice(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, sharded(5))
    for _ in range(2):  # downloaded, then from the cache
        seen = client.fetch(SOURCE)
        assert (seen["hashed"], seen["hashed_at_once"]) == (len(seen["files"]), 5)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core downloads one file at a time")
def test_small_files_come_side_by_side(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, checkpoint(**{"tokenizer_config.json": b"{}"}))
    # Each is sent once the other was asked for.
    hub.together = dict.fromkeys(["tokenizer.json", "tokenizer_config.json"], threading.Barrier(2, timeout=30))
    assert "tokenizer_config.json" in {file["path"] for file in client.look(SOURCE)["files"]}


def test_a_branch_moves_and_a_commit_stays(hub: MiniHub, client: Client) -> None:
    first = hub.add(REPO, checkpoint())
    before = client.look(SOURCE)
    second = hub.add(REPO, {**checkpoint(), "model.safetensors": safetensors("c")})
    after = client.look(SOURCE)
    assert before["identity"] != after["identity"]
    assert client.look(SOURCE, "--revision", first)["identity"] == before["identity"]
    assert client.look(f"{SOURCE}@{second}")["identity"] == after["identity"]


def test_a_commit_works_without_a_network(hub: MiniHub, client: Client) -> None:
    commit = hub.add(REPO, checkpoint())
    online = client.fetch(SOURCE)
    requests = len(hub.log)
    assert_refused(client.look(SOURCE, HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE", commit)
    assert len(hub.log) == requests
    hub.leave()
    assert client.fetch(f"{SOURCE}@{commit}") | {"progress": []} == online | {"progress": []}
    assert_refused(client.look(SOURCE), REPO, "cannot be reached", f"model.source=hf://{REPO}@{commit}")
    assert_refused(client.look(f"{SOURCE}@{'0' * 40}"), "cannot be reached", "model.source=/path")


def test_weights_in_git_itself_are_downloaded_to_be_hashed(hub: MiniHub, client: Client) -> None:
    hub.lfs_from = 1 << 30
    hub.add(REPO, checkpoint())
    seen = client.look(SOURCE)
    digests = {file["path"]: file["sha256"] for file in seen["files"]}
    assert digests["model.safetensors"] == hashlib.sha256(safetensors("a", "b")).hexdigest()
    assert hub.sent(".safetensors") == len(safetensors("a", "b"))


def test_a_gguf_s_architecture_costs_one_ranged_request(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, {"Some-Model.Q4_K.gguf": gguf(padding=300_000), "README.md": b""})
    seen = client.look(SOURCE)
    assert seen["architecture"] == "llama"
    assert seen["config"] is None
    assert [file["path"] for file in seen["files"]] == ["model.gguf"]
    assert hub.sent(".gguf") == 65536


def test_a_long_vocabulary_before_the_architecture(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, {"m.gguf": gguf(vocabulary(20_000), architecture="qwen2")})
    assert client.look(SOURCE)["architecture"] == "qwen2"


def test_one_of_several_ggufs_is_named(hub: MiniHub, client: Client) -> None:
    commit = hub.add(REPO, {"a.gguf": gguf(), "b.gguf": gguf(architecture="phi3"), "sub/c.gguf": gguf()})
    assert_refused(client.look(SOURCE), "several GGUF", "a.gguf, b.gguf", f"hf://{REPO}/<file>.gguf@main", REPO)
    seen = client.look(f"{SOURCE}/b.gguf@main")
    assert (seen["architecture"], seen["describe"]) == ("phi3", f"hf://{REPO}/b.gguf@{commit}")
    # the same bytes under another name and further down
    assert client.look(f"{SOURCE}/a.gguf")["identity"] == client.look(f"{SOURCE}/sub/c.gguf")["identity"]
    assert_refused(client.look(f"{SOURCE}/d.gguf"), "no file d.gguf", "a.gguf, b.gguf")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_corrupted_download_is_fetched_again(hub: MiniHub, client: Client, name: str) -> None:
    hub.add(REPO, checkpoint())
    hub.repositories[REPO].corrupt[name] = 1
    seen = client.fetch(SOURCE)
    assert Path(seen["paths"][name]).read_bytes() == checkpoint()[name]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_download_that_stays_corrupted_is_refused_and_not_kept(hub: MiniHub, client: Client, name: str) -> None:
    hub.add(REPO, checkpoint())
    hub.repositories[REPO].corrupt[name] = 99
    answer = client.fetch(SOURCE)
    assert_refused(answer, name, "is published", "HF_ENDPOINT", "removed")
    if name == "model.safetensors":
        bad = checkpoint()[name][:-1] + bytes([checkpoint()[name][-1] ^ 1])
        assert hashlib.sha256(checkpoint()[name]).hexdigest() in answer["message"]
        assert hashlib.sha256(bad).hexdigest() in answer["message"]
    assert all(path.read_bytes() in checkpoint().values() for path in client.cached)
    hub.repositories[REPO].corrupt.clear()
    assert Path(client.fetch(SOURCE)["paths"][name]).read_bytes() == checkpoint()[name]


def test_a_cached_copy_that_rotted_is_healed(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, checkpoint())
    path = Path(client.fetch(SOURCE)["paths"]["model.safetensors"])
    blob = path.resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    assert Path(client.fetch(SOURCE)["paths"]["model.safetensors"]).read_bytes() == safetensors("a", "b")


def test_gated(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, checkpoint())
    hub.repositories[REPO].accepted = {ACCEPTED}
    hub.tokens = {TOKEN, ACCEPTED}
    page = f"accept the licence at {hub.url}/{REPO}"
    assert_refused(client.look(SOURCE), "gated", page, "HF_TOKEN")
    assert_refused(client.look(SOURCE, HF_TOKEN=TOKEN), "gated", page)
    assert client.look(SOURCE, HF_TOKEN=ACCEPTED)["config"]
    assert_refused(client.look(SOURCE, HF_TOKEN=EXPIRED), "does not know the token", "expired")


def test_gated_gguf_is_told_at_its_first_bytes(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, {"m.gguf": gguf()})
    hub.repositories[REPO].accepted = set()
    assert_refused(client.look(SOURCE), "gated", "accept the licence")


@pytest.mark.parametrize("files", [checkpoint(), {"m.gguf": gguf()}], ids=["safetensors", "gguf"])
def test_the_token_stays_with_the_hub(hub: MiniHub, client: Client, files: dict[str, bytes]) -> None:
    hub.add(REPO, files)
    hub.cdn, hub.tokens, hub.repositories[REPO].accepted = True, {ACCEPTED}, {ACCEPTED}
    assert client.fetch(SOURCE, HF_TOKEN=ACCEPTED)["paths"]
    redirected = [one for one in hub.log if one.path.startswith("/cdn/")]
    assert redirected
    assert not any(one.token for one in redirected)


def test_no_such_repository_or_revision(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, checkpoint())
    assert_refused(client.look("hf://org/nmae"), "no repository org/nmae", "private", "HF_TOKEN")
    assert_refused(client.look(f"{SOURCE}@v2"), "no revision v2", "branch, a tag or a commit")


def test_a_revision_is_said_once(client: Client) -> None:
    answer = client.look(f"{SOURCE}@v1", "--revision", "v2")
    assert_refused(answer, "v1", "say it once")
    assert answer["option"] == "model.revision=v2"


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (Refusal(403, "", "no"), ["may not read", "HF_TOKEN"]),
        (Refusal(429, "", "slow down"), ["429", "wait"]),
        (Refusal(500, "", "oops"), ["answered 500", "later"]),
    ],
    ids=["403", "429", "500"],
)
def test_a_hub_in_trouble(hub: MiniHub, client: Client, refusal: Refusal, words: list[str]) -> None:
    hub.add(REPO, checkpoint())
    hub.down = refusal
    assert_refused(client.look(SOURCE), *words)


def test_an_endpoint_that_is_no_hub(hub: MiniHub, client: Client) -> None:
    hub.down = minihub.Refusal(200, "", "please log in")
    assert_refused(client.look(SOURCE), "HF_ENDPOINT")


def test_a_commit_that_is_a_path_is_no_commit(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, checkpoint())
    repository = hub.repositories[REPO]
    repository.commits["../../../evil"] = checkpoint()
    repository.branches["main"] = "../../../evil"
    assert_refused(client.look(SOURCE), "did not answer", "HF_ENDPOINT")
    assert not list(client.home.rglob("evil*"))


@pytest.mark.parametrize("spoiled", ["", "{", '{"schema": 1, "files": [{"name": 1}]}', '{"schema": 9}'])
def test_a_spoiled_memory_is_asked_for_again(hub: MiniHub, client: Client, spoiled: str) -> None:
    commit = hub.add(REPO, checkpoint())
    first = client.look(SOURCE)
    (memory,) = (client.home / "hf" / "trtbuild").rglob(f"{commit}.json")
    memory.write_text(spoiled)
    assert client.look(f"{SOURCE}@{commit}") == first


def test_a_password_in_the_endpoint_is_not_printed(client: Client) -> None:
    answer = client.look(SOURCE, HF_ENDPOINT="http://user:pass@word@127.0.0.1:9")
    assert_refused(answer, "cannot be reached", "***@127.0.0.1:9")
    assert "pass" not in answer["message"].replace("password", "")


def test_a_repository_without_what_is_needed(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, {"config.json": b"{}", "pytorch_model.bin": b"x" * 9999})
    assert_refused(client.look(SOURCE), REPO, "pytorch_model.bin", "pickled weights are not read")
    hub.add(REPO, {"model.safetensors": safetensors("a")})
    assert_refused(client.look(SOURCE), "no config.json")
    hub.add(REPO, checkpoint() | {"config.json": b"[1"})
    assert_refused(client.look(SOURCE), "config.json is not JSON")
    assert hub.sent(".safetensors") == 0


@pytest.mark.parametrize(
    "source", ["hf://name", "hf:org/name", "hf://org/name/x.bin", "hf://org/../x", "hf://org/n/../a.gguf"]
)
def test_malformed_locations(client: Client, source: str) -> None:
    assert_refused(client.look(source), source.rpartition("/")[2], "hf://")


def test_the_file_comes_before_the_revision(client: Client) -> None:
    assert_refused(client.look(f"{SOURCE}@main/a.gguf"), "hf://org/name/file.gguf@revision")
