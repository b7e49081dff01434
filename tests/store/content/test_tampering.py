"""What somebody changed on disk is a miss, is said, is replaced by the next build, and leads nowhere else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.store.support import FILES, KEY, OTHER, leftovers, publish, read_tree, write_files
from trtstore import Record, Store

SECRET = b"not the store's"


def replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def statement(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    envelope = json.loads(path.read_bytes())
    payload = json.loads(base64.b64decode(envelope["payload"]))
    change(payload)
    canonical = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
    replace(path, json.dumps(envelope | {"payload": base64.b64encode(canonical).decode()}).encode())


def truncated_record(record: Path, _manifest: Path, _engine: Path, _outside: Path) -> None:
    replace(record, record.read_bytes()[:100])


def empty_record(record: Path, _manifest: Path, _engine: Path, _outside: Path) -> None:
    replace(record, b"")


def huge_record(record: Path, _manifest: Path, _engine: Path, _outside: Path) -> None:
    replace(record, record.read_bytes() + b" " * (5 << 20))


def record_of_another_key(record: Path, _manifest: Path, _engine: Path, _outside: Path) -> None:
    statement(record, lambda found: found["subject"][0].update(name=OTHER))


def record_of_another_manifest(record: Path, _manifest: Path, _engine: Path, _outside: Path) -> None:
    statement(record, lambda found: found["subject"][0]["digest"].update(sha256="0" * 64))


def record_of_a_path(record: Path, _manifest: Path, _engine: Path, outside: Path) -> None:
    up = "../" * 12 + str(outside)
    statement(record, lambda found: found["subject"][0]["digest"].update(sha256=up))


def record_with_other_totals(record: Path, _manifest: Path, _engine: Path, _outside: Path) -> None:
    statement(record, lambda found: found["subject"][0]["annotations"].update(bytes=1))


def record_is_a_link(record: Path, _manifest: Path, _engine: Path, outside: Path) -> None:
    outside.write_bytes(record.read_bytes())
    record.unlink()
    record.symlink_to(outside)


def manifest_leads_outside(_record: Path, manifest: Path, _engine: Path, outside: Path) -> None:
    replace(manifest, manifest.read_bytes().replace(b"engine.bin", f"../../../../{outside.name}".encode()))


def manifest_is_absent(_record: Path, manifest: Path, _engine: Path, _outside: Path) -> None:
    manifest.unlink()


def manifest_is_a_link(_record: Path, manifest: Path, _engine: Path, outside: Path) -> None:
    outside.write_bytes(manifest.read_bytes())
    manifest.unlink()
    manifest.symlink_to(outside)


def blob_is_absent(_record: Path, _manifest: Path, engine: Path, _outside: Path) -> None:
    engine.unlink()


def blob_is_shorter(_record: Path, _manifest: Path, engine: Path, _outside: Path) -> None:
    replace(engine, engine.read_bytes()[:-1])


def blob_has_other_bytes(_record: Path, _manifest: Path, engine: Path, _outside: Path) -> None:
    replace(engine, engine.read_bytes()[::-1])


def blob_is_a_link(_record: Path, _manifest: Path, engine: Path, outside: Path) -> None:
    outside.write_bytes(engine.read_bytes())
    engine.unlink()
    engine.symlink_to(outside)


@pytest.mark.parametrize(
    "tamper",
    [
        truncated_record,
        empty_record,
        huge_record,
        record_of_another_key,
        record_of_another_manifest,
        record_of_a_path,
        record_with_other_totals,
        record_is_a_link,
        manifest_leads_outside,
        manifest_is_absent,
        manifest_is_a_link,
        blob_is_absent,
        blob_is_shorter,
        blob_has_other_bytes,
        blob_is_a_link,
    ],
)
def test_it_is_a_miss_and_the_next_build_replaces_it(
    tmp_path: Path, tamper: Callable[[Path, Path, Path, Path], None]
) -> None:
    store = Store.open(tmp_path / "store")
    folder = write_files(tmp_path / "out")
    record = publish(store, folder)
    outside = tmp_path / "outside"
    outside.write_bytes(SECRET)
    tamper(record_path(store), blob(store, record.manifest), engine(store), outside)
    before = (outside.read_bytes(), outside.stat().st_mtime_ns, outside.stat().st_mode)

    problems: list[str] = []
    assert store.lookup(KEY, on_problem=problems.append) is None
    assert len(problems) == 1
    assert str(record_path(store)) in problems[0]

    again = publish(store, folder)
    assert again == store.lookup(KEY) == record
    assert read_tree(store.materialise(again).path) == FILES
    assert not record_path(store).is_symlink()
    assert (outside.read_bytes(), outside.stat().st_mtime_ns, outside.stat().st_mode) == before
    assert leftovers(store.root) == []


def test_it_is_logged_when_nobody_asks_to_be_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store.open(tmp_path / "store")
    publish(store, write_files(tmp_path / "out"))
    replace(record_path(store), b"")
    assert store.lookup(KEY) is None
    assert [entry.name for entry in caplog.records] == ["trtstore"]


def test_a_lost_attachment_makes_a_miss_too(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    (tmp_path / "log").write_text("words")
    record: Record = publish(store, write_files(tmp_path / "out"), attachments={"log": tmp_path / "log"})
    blob(store, record.attachments["log"].digest).unlink()
    assert store.lookup(KEY) is None


def record_path(store: Store) -> Path:
    return store.root / "v1" / "records" / KEY[:2] / KEY


def blob(store: Store, digest: str) -> Path:
    path = store.blob_path(digest)
    assert path is not None
    return path


def engine(store: Store) -> Path:
    blobs = (store.root / "v1" / "blobs").rglob("*")
    return next(path for path in blobs if path.is_file() and path.read_bytes() == FILES["engine.bin"])
