"""A model's bytes are those that its identity names, whatever a store, a team or a neighbour says."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.sources.samples import PlainDigester, checkpoint, write
from tests.support import tiny
from tests.support.cli import Project
from tests.support.minihub import MiniHub
from trtbuild.building.model_bytes import manifest_of
from trtbuild.errors import BuildError
from trtbuild.facts.key import Step, Worker, key_of
from trtbuild.sources import SourceFile, identity, open_source
from trtbuild.sources.file_snapshot import recheck, take_snapshots
from trtstore import Corrupt, Record, Store

NAMES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
EVIL = "lists other files than those that its key names"


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the files of the tiny model, and other weights."""
    folder = tmp_path_factory.mktemp("evil")
    tiny.write_model(folder, seed=99)
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> str:
    """The sha256 of the network's weights, as a store without foreign records makes them."""
    project = Project(tmp_path_factory.mktemp("reference"))
    done = project.trtbuild(f"model.source={tiny_llama}", "until=network")
    return weights(done.path)


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.onnx.data").read_bytes()).hexdigest()


def rows(folder: Path) -> list[SourceFile]:
    found = sorted(path for path in folder.iterdir() if path.name in tiny_names(folder))
    return [SourceFile(p.name, p.stat().st_size, hashlib.sha256(p.read_bytes()).hexdigest()) for p in found]


def tiny_names(folder: Path) -> list[str]:
    """The files of a checkpoint that a build reads, as the source itself lists them."""
    source = open_source(str(folder), revision=None, digester=PlainDigester())
    return [file.path for file in source.files()]


def poison(store: Store, good: Path, evil: Path) -> Record:
    """A record for the source of `good` with the weights of `evil`."""
    key = key_of(Step("source", Worker("", 1), {}, reads_model=True), identity(rows(good)), {})
    with store.scratch() as work:
        (work / "out").mkdir()
        for name in tiny_names(good):
            shutil.copyfile((evil if name.endswith(".safetensors") else good) / name, work / "out" / name)
        return store.publish(
            key, work / "out", predicate_type="urn:x", predicate={}, labels={"step": "source", "model": "toy"}
        )


def test_a_local_folder_is_read_where_it_is(project: Project, tiny_llama: Path, evil: Path, reference: str) -> None:
    poison(Store.open(project.store), tiny_llama, evil)
    done = project.trtbuild(f"model.source={tiny_llama}", "until=network")
    assert (done.code, weights(done.path)) == (0, reference)


def test_a_record_with_other_weights_is_a_miss_in_every_store(
    project: Project, tiny_llama: Path, evil: Path, reference: str, tmp_path: Path
) -> None:
    """In the local store and in another on this machine: the Hub's files are taken instead, and it is told."""
    other = Store.open(tmp_path / "other")
    poison(other, tiny_llama, evil)
    poison(Store.open(project.store), tiny_llama, evil)
    with MiniHub() as hub:
        hub.add("tiny/llama", {path.name: path.read_bytes() for path in tiny_llama.iterdir()})
        words = ("model.source=hf://tiny/llama", "until=network", f"store.also=[{other.root}]")
        done = project.trtbuild(*words, env={"HF_ENDPOINT": hub.url})
    assert (done.code, weights(done.path)) == (0, reference), done.err
    assert done.err.count(EVIL) == 2


def test_a_record_with_the_right_files_serves_the_hub_s_model(
    project: Project, tiny_llama: Path, reference: str
) -> None:
    """So a site without a network can be given a checkpoint; no weight is downloaded."""
    poison(Store.open(project.store), tiny_llama, tiny_llama)
    with MiniHub() as hub:
        hub.add("tiny/llama", {path.name: path.read_bytes() for path in tiny_llama.iterdir()})
        done = project.trtbuild("model.source=hf://tiny/llama", "until=network", env={"HF_ENDPOINT": hub.url})
        assert (done.code, weights(done.path)) == (0, reference), done.err
        assert [e for e in hub.log if "safetensors" in e.path and e.sent > 1 << 16] == []


def test_an_edited_tree_of_the_store_is_not_read(
    project: Project, tiny_llama: Path, evil: Path, reference: str
) -> None:
    """A neighbour puts other weights into the tree of a checkpoint, with the size and the time that were there."""
    store = Store.open(project.store)
    record = poison(store, tiny_llama, tiny_llama)
    target = store.materialise(record).path / "model.safetensors"
    times = target.stat()
    assert (evil / target.name).stat().st_size == times.st_size
    target.chmod(0o644)
    target.write_bytes((evil / target.name).read_bytes())
    target.chmod(0o444)
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    with MiniHub() as hub:
        hub.add("tiny/llama", {path.name: path.read_bytes() for path in tiny_llama.iterdir()})
        done = project.trtbuild("model.source=hf://tiny/llama", "until=network", env={"HF_ENDPOINT": hub.url})
    assert (done.code, weights(done.path)) == (0, reference), done.err


def test_what_the_caller_knows_replaces_a_record_with_other_files(tmp_path: Path) -> None:
    store, key = Store.open(tmp_path / "store"), "a" * 64

    def publish(text: str, manifest: str | None = None) -> Record:
        with store.scratch() as work:
            (work / "out").mkdir()
            (work / "out" / "file").write_text(text)
            return store.publish(key, work / "out", predicate_type="urn:x", predicate={}, labels={}, manifest=manifest)

    wrong = publish("wrong")
    assert publish("right") == wrong, "whoever knows nothing beforehand gets the first"
    wanted = manifest_of([SourceFile("file", 5, hashlib.sha256(b"right").hexdigest())])
    told: list[str] = []
    assert store.use(key, manifest=wanted, on_problem=told.append) is None
    assert EVIL in told[0]
    with pytest.raises(Corrupt):
        publish("other", wanted)
    assert store.lookup(key) == wrong, "what is not what was expected is not published"
    assert publish("right", wanted).manifest == wanted
    found = store.use(key, manifest=wanted)
    assert found is not None
    assert (store.materialise(found).path / "file").read_text() == "right"


def test_of_many_that_publish_what_is_expected_one_wins(tmp_path: Path) -> None:
    store, key = Store.open(tmp_path / "store", durability="fast"), "b" * 64
    wanted = manifest_of([SourceFile("file", 5, hashlib.sha256(b"right").hexdigest())])

    def publish(text: str, manifest: str | None) -> None:
        with store.scratch() as work:
            (work / "out").mkdir()
            (work / "out" / "file").write_text(text)
            store.publish(key, work / "out", predicate_type="urn:x", predicate={}, labels={}, manifest=manifest)

    jobs = [("wrong", None), ("right", wanted)] * 4
    threads = [threading.Thread(target=publish, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.lookup(key)
    assert found is not None
    assert found.manifest == wanted


def test_names_that_no_artifact_can_have_are_in_no_store() -> None:
    assert manifest_of([SourceFile("a\\b", 1, "0" * 64)]) is None


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Mapping[str, Path]]:
    folder = write(tmp_path / "m", checkpoint())
    yield {path.name: path for path in folder.iterdir()}


def swap_and_back(path: Path) -> None:
    """Other bytes, then the first ones, and the time of modification as it was."""
    good, times = path.read_bytes(), path.stat()
    path.write_bytes(b"x" * len(good))
    path.write_bytes(good)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("open_to_others", [False, True])
def test_other_bytes_for_a_while_are_noticed_where_others_may_write(
    seen: Mapping[str, Path], open_to_others: bool
) -> None:
    digester = PlainDigester()
    path = seen["model.safetensors"]
    path.parent.chmod(0o777 if open_to_others else 0o755)
    snapshots = take_snapshots([path], digester, "model.source")
    swap_and_back(path)
    if open_to_others:
        with pytest.raises(BuildError, match="may write there"):
            recheck(snapshots, digester, "model.source")
    else:
        recheck(snapshots, digester, "model.source")
