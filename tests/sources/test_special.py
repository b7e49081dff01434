"""Folders that are no plain checkpoints: devices, FIFOs, links to such, very many files, and names that are no text."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sources.samples import PlainDigester, checkpoint, ignore, sharded, write
from trtbuild.errors import BuildError, InputError
from trtbuild.sources import open_source
from trtbuild.sources.base import Source
from trtbuild.sources.file_snapshot import recheck, take_snapshots
from trtstore import Index, hash_files


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """An open that hangs ends the test, and not the day."""

    def ended(_signal: int, _frame: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, ended)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def opened(folder: Path) -> Source:
    return open_source(str(folder), revision=None, digester=PlainDigester())


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


SPECIAL = [fifo, link_to_device, link_to_itself]


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "other.safetensors"])
def test_special_files_are_no_files_of_a_checkpoint(tmp_path: Path, make: Callable[[Path], None], name: str) -> None:
    folder = write(tmp_path / "m", checkpoint())
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    try:
        listed = [file.path for file in opened(folder).files()]
    except InputError:
        return
    assert name not in listed


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize("name", ["config.json", "model-00001-of-00003.safetensors", "model.safetensors.index.json"])
def test_a_file_that_becomes_special_after_it_was_listed(
    tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    folder = write(tmp_path / "m", sharded(3))
    source = opened(folder)
    source.headers()  # the names are known by then
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(InputError):
        source.files()
        source.config()


@pytest.mark.parametrize("make", SPECIAL)
def test_a_file_that_becomes_special_while_a_step_reads_it(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = write(tmp_path / "m", checkpoint())
    path = folder / "model.safetensors"

    class Digester:
        def file_digests(self, paths: list[Path]) -> list[str]:
            return hash_files(paths, Index(tmp_path / "index"))

    snapshots = take_snapshots([path], Digester(), "model.source")
    path.unlink()
    make(path)
    with pytest.raises(BuildError):
        recheck(snapshots, Digester(), "model.source")


@pytest.mark.parametrize("make", [fifo, link_to_device])
def test_a_special_file_is_no_source(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "model.gguf")
    with pytest.raises(InputError, match="neither a folder nor a file"):
        opened(tmp_path / "model.gguf")


def test_a_folder_of_very_many_files_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", checkpoint())
    first = folder / "0"
    first.touch()
    for count in range(50_001):
        os.link(first, folder / f"x{count}")
    with pytest.raises(InputError, match="has more than 50000 files"):
        opened(folder).files()


def test_names_that_are_no_text(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", checkpoint())
    names = [file.path for file in opened(folder).files()]
    (folder / os.fsdecode(b"\xff.json")).write_text("{}")
    assert [file.path for file in opened(folder).files()] == names
    (folder / os.fsdecode(b"\xff.safetensors")).write_bytes(b"x")
    with pytest.raises(InputError, match="whose name is not UTF-8"):
        opened(folder).files()


def test_a_fetch_of_a_folder_puts_nothing_anywhere(tmp_path: Path) -> None:
    source, before = opened(write(tmp_path / "m", checkpoint())), threading.active_count()
    assert source.in_place
    source.fetch(tmp_path / "not there", ignore)
    assert not (tmp_path / "not there").exists()
    assert threading.active_count() <= before
