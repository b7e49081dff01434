"""What must hold for each parser of the store, whatever bytes it is given: one function a parser."""

from __future__ import annotations

import base64
import io
import json
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from trtstore import (
    Index,
    Store,
    StoreFailure,
    bundle,
    doubts,
    index,
    issues,
    leases,
    locks,
    manifest,
    records,
    revlist,
    revoked,
    strictjson,
    teampolicy,
    trust,
)
from trtstore.envelopes import Envelope
from trtstore.errors import Invalid, Malformed
from trtstore.upkeep import Upkeep

KEY = "5e" * 32
MODES = (1, 2, 3, 4, None, "x")
FORMS = ("?", "CAST(? AS TEXT)", "CAST(? AS INTEGER)", "CAST(? AS REAL)", "NULL")


def strict_json(data: bytes) -> None:
    """Canonical bytes are the one spelling of their value, and a value survives being written."""
    try:
        value = strictjson.parse(data, "it")
        written = strictjson.canonical(value)
    except (Malformed, ValueError):
        return
    assert strictjson.parse_canonical(written, "it") == value
    try:
        strictjson.parse_canonical(data, "it")
    except Malformed:
        assert written != data
    else:
        assert written == data


def manifest_blob(data: bytes) -> None:
    """A manifest has one spelling, and none of its paths leads out of a tree or onto another."""
    try:
        found = manifest.parse(data)
    except Malformed:
        return
    assert found.encode() == data
    assert manifest.build(reversed(found.entries)) == found
    for entry in found.entries:
        names = entry.path.split("/")
        assert all(0 < len(name.encode()) < 256 and name not in (".", "..") for name in names)
        assert not set(entry.path) & set("\0\n\r\x1b\\")
        assert not any(other.path.startswith(f"{entry.path}/") for other in found.entries)
    assert len({entry.path.casefold() for entry in found.entries}) == len(found.entries)


def record(data: bytes) -> None:
    """A record that is read leads to digests only, and is the same when it is written and read again."""
    try:
        found = records.parse(data, KEY)
    except Malformed:
        return
    assert found.key == KEY
    for digest in (found.manifest, *(file.digest for file in found.attachments.values())):
        assert digest.startswith("sha256:")
        assert len(digest) == 71
        assert set(digest[7:]) <= set("0123456789abcdef")
    assert len(found.labels) <= records.MAX_LABELS
    assert records.parse(records.encode(found), KEY) == found


def statement(data: bytes) -> None:
    """As `record`, for the statement in its envelope, which mutations of base64 would rarely reach."""
    payload = base64.b64encode(data).decode()
    record(strictjson.canonical({"payload": payload, "payloadType": records.PAYLOAD_TYPE, "signatures": []}))


class _Row:
    """One row of an index, which is planted and read over and over."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-index-")
        self.index = Index(Path(self._folder.name) / "index")
        self.index.put("t", "k", 1)
        self._database = Path(self._folder.name) / "index" / "cache.db"

    def plant(self, mode: object, form: str, data: bytes) -> None:
        with closing(sqlite3.connect(self._database)) as database:
            database.execute("PRAGMA synchronous = OFF")
            database.execute("PRAGMA journal_mode = MEMORY")
            values = (mode, data) if "?" in form else (mode,)
            database.execute(f"UPDATE Cache SET mode = ?, value = {form}", values)  # noqa: S608  # one of FORMS
            database.commit()


_ROW: list[_Row] = []  # made at the first use: importing this module touches no disk


def index_row(data: bytes) -> None:
    """A row is a miss, or the JSON that its text spells; it never raises, and never unpickles."""
    if len(data) < 2:
        return
    if not _ROW:
        _ROW.append(_Row())
    mode, form, value = MODES[data[0] % len(MODES)], FORMS[data[1] % len(FORMS)], data[2:]
    text = value.decode(errors="replace")
    right = index._sum("t:k", text).encode()
    _ROW[0].plant(mode, form, right + text.encode() if data[0] & 128 else value)
    found = _ROW[0].index.get("t", "k")
    if found is None:
        return
    assert (mode, form) == (1, "CAST(? AS TEXT)")
    if not data[0] & 128:
        assert value.startswith(index._sum("t:k", value[index.SUM :].decode()).encode())
        text = value[index.SUM :].decode()
    assert same(found, json.loads(text))


def same(one: Any, other: Any) -> bool:
    """Equality where NaN equals itself."""
    return json.dumps(one) == json.dumps(other)


class _Note:
    """A lock's file, which is written over and over without being made anew: some file systems flush those."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-note-")
        self.path = Path(self._folder.name) / "lock"
        self.path.touch()

    def write(self, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.write(data)
            file.truncate()


_NOTE: list[_Note] = []


def lock_note(data: bytes) -> None:
    """A lock's file names its holder, or nobody in particular."""
    if not _NOTE:
        _NOTE.append(_Note())
    _NOTE[0].write(data)
    holder = locks._holder(_NOTE[0].path)
    assert type(holder.pid) is int
    assert type(holder.who) is str
    assert type(holder.started) is float
    assert len(holder.who) <= 4096
    if holder.who == "another process" and holder.pid == 0:
        return
    note = json.loads(data[:4096])
    assert holder.who == "".join(filter(str.isprintable, str(note["who"])))
    assert holder.pid == int(note["pid"])


_STORE: list[Store] = []


def export_file(data: bytes) -> None:
    """What a bundle brings is whole and right, or refused in the store's own words."""
    if not _STORE:
        _STORE.append(Store.open(Path(tempfile.mkdtemp(prefix="fuzz-store-")), durability="fast"))
    store = _STORE[0]
    with suppress(StoreFailure):
        list(bundle.import_from(store, io.BytesIO(data)))
    keys = list(store.keys())
    assert all(store.lookup(key) is not None for key in keys)
    if keys:
        assert Upkeep(store).verify() == []
        Upkeep(store).collect(0, grace=0)
        assert not any(store.keys())


def revocation(data: bytes) -> None:
    """A revocation is of the digest that was asked for, and its words can be shown."""
    try:
        found = revoked.parse(Envelope(data, ()).encode(), KEY)[1]
    except Malformed:
        return
    assert found.digits == KEY
    assert not {"\x1b", "\n", "\r"} & set(str(found))


def revocation_list(data: bytes) -> None:
    """A list of revocations is one, with a version and a last day, or malformed."""
    try:
        found = revlist.parse(Envelope(data, ()).encode())[1]
    except Malformed:
        return
    assert 1 <= found.issue.version <= issues.MAX_VERSION
    assert found.seconds > 0
    assert revlist.parse(found.statement().encode())[1] == found


def policy(data: bytes) -> None:
    """What collectors go by has limits that are counts, or none, or is malformed."""
    try:
        found, issue = teampolicy.parsed(Envelope(data, ()).encode())[1:]
    except Malformed:
        return
    assert found.max_bytes is None or found.max_bytes >= 0
    assert found.keep_days is None or found.keep_days >= 0
    assert issue.version >= 0


def kept_files(data: bytes) -> None:
    """What a store keeps of revocations and doubts is read, or malformed: callers then believe the worst."""
    for read in (lambda: revoked._decode(data, KEY), lambda: doubts._parse(data)):
        with suppress(Malformed):
            assert read()


def lease(data: bytes) -> None:
    """A lease is read whatever it holds, makes nobody wait for long, and its words can be shown."""
    state = leases._parse(data, 7)
    assert state.number == 7
    assert 0 < state.heartbeat <= leases.MAX_HEARTBEAT
    assert state.words().isprintable()
    assert leases._parse(state.encode(), 7) == state


def trusted_key(data: bytes) -> None:
    """A line is a key that reads back, or is refused."""
    try:
        found = trust.parse(data.decode(errors="replace"))
    except Invalid:
        return
    assert len(trust.raw(found.key)) == trust.KEY_BYTES
    assert trust.parse(found.line()).line() == found.line()
    assert (found.beyond({}) is None) or found.scope


TARGETS: dict[str, Callable[[bytes], None]] = {
    "strict_json": strict_json,
    "manifest_blob": manifest_blob,
    "record": record,
    "statement": statement,
    "index_row": index_row,
    "lock_note": lock_note,
    "export_file": export_file,
    "revocation_list": revocation_list,
    "policy": policy,
    "kept_files": kept_files,
    "revocation": revocation,
    "lease": lease,
    "trusted_key": trusted_key,
}
