"""Manifests made by hand, stored under their own SHA-256 with a record that names them: refused, and cheaply so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.store.support import FILES, KEY, PREDICATE_TYPE, publish, read_tree, write_files
from trtstore import Corrupt, Record, Store
from trtstore.content.blobs import MODE
from trtstore.disk.layout import STAMP
from trtstore.format import manifest
from trtstore.format import record as records
from trtstore.format.digest import digest_of, hash_bytes

ENGINE = hash_bytes(FILES["engine.bin"])
SIZE = len(FILES["engine.bin"])


def row(**changes: Any) -> dict[str, Any]:
    return {"mode": "0644", "path": "engine.bin", "sha256": ENGINE, "size": SIZE} | changes


def written(*rows: dict[str, Any], schema: object = 1) -> bytes:
    """As RFC 8785 spells it, as far as json.dumps can: rows in order of their names."""
    value = {"entries": list(rows), "schema": schema}
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode(errors="surrogatepass")


def paths(*names: str) -> bytes:
    return written(*(row(path=name) for name in names))


PLAIN = written(row())


def spelt(number: str) -> bytes:
    return PLAIN.replace(f'"size":{SIZE}'.encode(), f'"size":{number}'.encode())


HOSTILE = {
    "absolute": paths("/etc/canary"),
    "up": paths("../canary"),
    "up within": paths("a/../b"),
    "up at the end": paths("a/.."),
    "here": paths("./a"),
    "doubled slash": paths("a//b"),
    "final slash": paths("a/"),
    "empty path": paths(""),
    "backslash": paths("..\\canary"),
    "drive": paths("c:\\a"),
    "NUL": paths("a\0b"),
    "escape": paths("a\x1b[2Jb"),
    "line feed": paths("a\nb"),
    "C1 control": paths("a\x9bb"),
    "line separator": paths("a\u2028b"),
    "NFD": paths("e\u0301"),
    "Hangul jamo": paths("\u1100\u1161"),
    "surrogate as bytes": paths("a\ud800b"),
    "surrogate as an escape": PLAIN.replace(b"engine.bin", b"\\ud800"),
    "surrogate pair as bytes": paths("\ud83d\ude00"),
    "overlong slash": PLAIN.replace(b"engine.bin", b"a\xc0\xafb"),
    "escaped slash": PLAIN.replace(b"engine.bin", b"a\\/b"),
    "escaped letter": PLAIN.replace(b"engine.bin", b"\\u0061"),
    "long name": paths("n" * 256),
    "long name in bytes": paths("é" * 128),
    "long path": paths("/".join(["n" * 200] * 6)),
    "symlink": written(row(mode="0120000")),
    "all may write": written(row(mode="0777")),
    "setuid": written(row(mode="4755")),
    "mode as octal": written(row(mode=0o644)),
    "mode as text": written(row(mode="-rw-r--r--")),
    "twice": paths("a", "a"),
    "case": paths("A", "a"),
    "case of a folder": paths("A/x", "a/y"),
    "case by folding": paths("STRASSE", "straße"),
    "file and folder": paths("a", "a/b"),
    "file and folder apart": paths("a", "a-b", "a/b"),
    "file and folder of another case": paths("A", "a/b"),
    "unsorted": paths("b", "a"),
    "1e3": spelt("6e3"),
    "1.0": spelt("6000.0"),
    "plus": spelt("+6000"),
    "zeros": spelt("06000"),
    "minus zero": spelt("-0"),
    "negative": spelt("-1"),
    "2^53": spelt(str(2**53)),
    "2^64": spelt(str(2**64)),
    "many digits": spelt("9" * 10_000),
    "1e400": spelt("1e400"),
    "NaN": spelt("NaN"),
    "Infinity": spelt("Infinity"),
    "true": spelt("true"),
    "null": spelt("null"),
    "text": spelt('"6000"'),
    "deep": b"[" * 200_000 + b"]" * 200_000,
    "deep in a field": PLAIN.replace(b'"schema":1', b'"schema":' + b"[" * 50_000 + b"]" * 50_000),
    "name twice": PLAIN.replace(b'"schema":1', b'"schema":1,"schema":1'),
    "name twice in an entry": PLAIN.replace(b'"path":', b'"path":"../x","path":'),
    "another field": PLAIN.replace(b'"path":', b'"link":"/etc","path":'),
    "entry as a list": written(list(row().values())),  # type: ignore[arg-type]
    "trailing line feed": PLAIN + b"\n",
    "trailing NUL": PLAIN + b"\0",
    "trailing value": PLAIN + b"{}",
    "leading space": b" " + PLAIN,
    "BOM": b"\xef\xbb\xbf" + PLAIN,
    "UTF-16": PLAIN.decode().encode("utf-16"),
    "UTF-16 without BOM": PLAIN.decode().encode("utf-16-le"),
    "UTF-32": PLAIN.decode().encode("utf-32"),
    "digest in capitals": written(row(sha256=ENGINE.upper())),
    "digest with a line feed": written(row(sha256=ENGINE + "\n")),
    "digest that is a path": written(row(sha256="../" * 20 + "etc/pass")),
    "digest with its algorithm": written(row(sha256=f"sha256:{ENGINE}")),
    "schema 1.0": PLAIN.replace(b'"schema":1', b'"schema":1.0'),
    "schema true": written(row(), schema=True),
    "schema 2": written(row(), schema=2),
    "no entries": written(),
    "nothing": b"",
}


def plant(store: Store, data: bytes) -> Record:
    """Store `data` as the manifest of KEY, as a writer without scruples would."""
    digits = hash_bytes(data)
    record = Record(KEY, digest_of(digits), SIZE, 1, {}, {}, PREDICATE_TYPE, {})
    blob = store.root / "v1" / "blobs" / "sha256" / digits[:2] / digits
    place = store.root / "v1" / "records" / KEY[:2] / KEY
    for path, content in ((blob, data), (place, records.encode(record))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(MODE)
        os.utime(path, (STAMP, STAMP))
    return record


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.open(tmp_path / "store", durability="fast")
    publish(made, write_files(tmp_path / "out"))
    return made


def test_a_plain_manifest_planted_this_way_is_read(store: Store) -> None:
    record = plant(store, PLAIN)
    assert store.lookup(KEY) == record
    assert read_tree(store.materialise(record).path) == {"engine.bin": FILES["engine.bin"]}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_manifest_is_a_miss_writes_nowhere_and_is_replaced(store: Store, tmp_path: Path, case: str) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"keep")
    record = plant(store, HOSTILE[case])
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*") if "locks" not in path.parts}

    heard: list[str] = []
    assert store.lookup(KEY, on_problem=heard.append) is None
    assert len(heard) == 1
    assert heard[0].isprintable()  # it reaches a terminal or a log: no control characters, no line feeds
    assert len(heard[0]) < 1000
    with pytest.raises(Corrupt):
        store.materialise(record)
    after = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*") if "locks" not in path.parts}
    assert after == before

    again = publish(store, tmp_path / "out")
    assert store.lookup(KEY) == again
    assert read_tree(store.materialise(again).path) == FILES
    assert canary.read_bytes() == b"keep"


MEASURED = """
import resource, sys, time
from pathlib import Path
from trtstore import Store
store = Store.open(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]) << 20,) * 2)
said = []
found = store.lookup("5e" * 32, on_problem=said.append)
# Not ru_maxrss, which a child has from its parent.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(found is None, int(peak.split()[1]) >> 10, said[0][-100:])
"""


def measured(store: Store, megabytes: int) -> tuple[int, str]:
    """(peak MiB, the problem that was told) of a lookup in a process that may have no more than that."""
    command = [sys.executable, "-c", MEASURED, str(store.root), str(megabytes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    missed, peak, problem = done.stdout.split(maxsplit=2)
    assert missed == "True"
    return int(peak), problem


def lengthen(store: Store, record: Record, size: int) -> None:
    path = store.blob_path(record.manifest)
    assert path is not None
    path.chmod(0o600)
    os.truncate(path, size)  # sparse: no disk holds it
    os.utime(path, (STAMP, STAMP))


def test_a_manifest_of_a_gigabyte_is_refused_by_its_size(store: Store) -> None:
    lengthen(store, plant(store, PLAIN), 1 << 30)
    peak, _ = measured(store, 500)
    assert peak < 100


def test_a_record_of_a_gigabyte_is_refused_by_its_size(store: Store) -> None:
    plant(store, PLAIN)
    path = store.root / "v1" / "records" / KEY[:2] / KEY
    path.chmod(0o600)
    os.truncate(path, 1 << 30)
    peak, _ = measured(store, 500)
    assert peak < 100


def test_a_manifest_of_a_million_entries_is_refused_by_its_size(store: Store) -> None:
    rows = (f'{{"mode":"0644","path":"{n:07}","sha256":"{ENGINE}","size":1}}' for n in range(1_000_000))
    plant(store, f'{{"entries":[{",".join(rows)}],"schema":1}}'.encode())
    peak, _ = measured(store, 500)
    assert peak < 100


def test_paths_of_many_folders_cost_memory_in_proportion(store: Store) -> None:
    rows = [row(path="/".join([f"{number:05}", *"b" * 62]), size=1) for number in range(1_500)]
    assert len(manifest.parse(written(*rows)).entries) == 1_500
    plant(store, written(*(row(path="/".join([f"{number:05}", *"b" * 500]), size=1) for number in range(2_000))))
    peak, problem = measured(store, 500)
    assert peak < 150
    assert "more than 64 names" in problem


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"0,", b'"",', b'{"mode":[]},'])
def test_a_manifest_of_the_most_bytes_that_lists_something_else_costs_little_memory(store: Store, piece: bytes) -> None:
    plant(store, b'{"entries":[' + piece * ((manifest.MAX_BYTES - 100) // len(piece)) + b'[]],"schema":1}')
    peak, problem = measured(store, 500)
    assert peak < 250
    assert "no list of entries" in problem
