"""What must hold for each parser of foreign bytes, whatever they are: one function a parser."""

from __future__ import annotations

import base64
import io
import json
import math
import sqlite3
import struct
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trtbuild import untrusted
from trtbuild.config import yaml_files
from trtbuild.errors import InputError, TrtbuildError
from trtbuild.executors import worker_events
from trtbuild.formats import gguf as gguf_header
from trtbuild.formats import safetensors
from trtbuild.toolchains import lock
from trtstore import Index, Store, StoreFailure, units
from trtstore.disk import locks
from trtstore.disk.layout import Layout
from trtstore.environments import environment, seal
from trtstore.errors import Invalid, Malformed
from trtstore.exchange import bundle
from trtstore.format import canonical_json, manifest, trust
from trtstore.format import record as records
from trtstore.format.envelope import Envelope
from trtstore.index import index
from trtstore.marks import doubts, pins, revocations
from trtstore.remote import leases
from trtstore.team import policy as teampolicy
from trtstore.team import revocation_list as revlist
from trtstore.team import versioned
from trtstore.upkeep.maintenance import Maintenance

KEY = "5e" * 32
MODES = (1, 2, 3, 4, None, "x")
FORMS = ("?", "CAST(? AS TEXT)", "CAST(? AS INTEGER)", "CAST(? AS REAL)", "NULL")


def strict_json(data: bytes) -> None:
    """Canonical bytes are the one spelling of their value, and a value survives being written."""
    try:
        value = canonical_json.parse(data, "it")
        written = canonical_json.canonical(value)
    except (Malformed, ValueError):
        return
    assert canonical_json.parse_canonical(written, "it") == value
    try:
        canonical_json.parse_canonical(data, "it")
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
    assert manifest.make_manifest(reversed(found.entries)) == found
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
    record(canonical_json.canonical({"payload": payload, "payloadType": records.PAYLOAD_TYPE, "signatures": []}))


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
        assert Maintenance(store).verify() == []
        Maintenance(store).collect(0, grace=0)
        assert not any(store.keys())


def revocation(data: bytes) -> None:
    """A revocation is of the digest that was asked for, and its words can be shown."""
    try:
        found = revocations.parse(Envelope(data, ()).encode(), KEY)[1]
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
    assert 1 <= found.issue.version <= versioned.MAX_VERSION
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
    for read in (lambda: revocations._decode(data, KEY), lambda: doubts._parse(data)):
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


def foreign_json(data: bytes) -> None:
    """What is read can be written, compared, converted and printed; and Python's own parser reads the same."""
    try:
        found = untrusted.parse(data)
    except untrusted.MalformedJson as refused:
        assert len(str(refused)) < 1000
        return
    text = json.dumps(found, ensure_ascii=False)
    text.encode()
    assert untrusted.parse(json.dumps(found)) == found == json.loads(data)
    _convert(found)


def _convert(value: Any) -> None:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _convert(inner)
    elif isinstance(value, int | float):
        int(value)
        assert math.isfinite(float(value))


def tensors(data: bytes) -> None:
    """A header of safetensors is refused, or each of its tensors lies in the file."""
    for blob in (data, struct.pack("<Q", len(data)) + data + bytes(20)):
        try:
            found = safetensors.read_header(
                lambda count, blob=blob: blob[:count], len(blob), "model.safetensors", "model.source"
            )
        except InputError:
            continue
        assert all(0 <= each.begin <= each.end <= len(blob) for each in found.values())


def gguf(data: bytes) -> None:
    """A header of GGUF is refused, or read with no more than its bytes can hold."""
    for read in (gguf_header.read_architecture, gguf_header.read_header, gguf_header.read_metadata):
        with suppress(InputError):
            read(lambda count: data[:count], len(data), "model.gguf", "model.source")


_FILE: list[_Note] = []


def config_file(data: bytes) -> None:
    """A config's YAML is refused in words, or has few values: Hydra's loader unfolds its aliases."""
    if not _FILE:
        _FILE.append(_Note())
    _FILE[0].write(data)
    try:
        yaml_files.check(_FILE[0].path)
        found = OmegaConf.load(_FILE[0].path)
    except (ValueError, TypeError, yaml.YAMLError, RecursionError, OmegaConfBaseException, OSError):
        return  # as `yaml_files.Bounded` takes them
    OmegaConf.to_container(found, resolve=False)


def toolchain_lock(data: bytes) -> None:
    """A lock is refused, or reads the same once it is written."""
    with suppress(InputError):
        found = lock.parse(data.decode(errors="replace"), "toolchain", "made-up", "made-up.txt")
        assert lock.parse(found.text, "toolchain", "made-up", "made-up.txt") == found


def worker_answer(data: bytes) -> None:
    """What a worker says is an answer, an event with all its fields, or a line of the log."""
    events: list[Any] = []
    said, log = io.StringIO(data.decode(errors="replace")), io.StringIO()
    answer = worker_events.listen(said, log, events.append)
    assert answer is None or isinstance(answer, dict | TrtbuildError)
    for event in events:
        if event["event"] == "progress":
            assert event["what"] + event["unit"] is not None
            assert event["done"] + event["total"] >= 0


def small_files(data: bytes) -> None:
    """A pin and an environment's files are read, or count as unreadable."""
    if not _PLACE:
        _PLACE.append(Layout(Path(tempfile.mkdtemp(prefix="fuzz-files-")), durable=False))
    layout = _PLACE[0]
    home = layout.toolchains / "a-1"
    for folder in (layout.pins, home):
        folder.mkdir(parents=True, exist_ok=True)
    files = (environment.ABOUT, environment.CONTENTS, seal.SEAL)
    for path in (layout.pins / KEY, *(home / name for name in files)):
        path.write_bytes(data)
    (pin,) = pins.found(layout).values()
    assert len(pin.note) <= pins.MAX_NOTE
    units.moment(pin.since)
    found = environment.read(home)
    assert found is None or found.bytes + found.files is not None
    environment._contents(home)
    seal._sealed(home)


_PLACE: list[Layout] = []


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
    "foreign_json": foreign_json,
    "tensors": tensors,
    "gguf": gguf,
    "config_file": config_file,
    "toolchain_lock": toolchain_lock,
    "worker_answer": worker_answer,
    "small_files": small_files,
}
