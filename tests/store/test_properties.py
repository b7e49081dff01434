"""What holds of each parser of the store for any input; CI draws the same inputs each time."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.fuzz import targets
from tests.fuzz.seeds import ENVELOPE, MANIFEST, RECORD, STATEMENT
from tests.store.support import KEY
from trtstore import Index, Invalid
from trtstore.disk import locks
from trtstore.disk.layout import Layout, read_bounded, walk
from trtstore.errors import Malformed
from trtstore.format import canonical_json, manifest
from trtstore.format import record as records
from trtstore.format.digest import digest_of, hash_bytes, hex_of, is_hex
from trtstore.marks import roots

steady = settings(
    derandomize=True,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=15,
)
ANY_JSON = JSON | st.floats() | st.integers() | st.text(st.characters(), max_size=5)


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with a few pieces cut out, doubled or replaced."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 20)))
        piece = draw(st.binary(max_size=4) | st.just(data[start:end] * 2) | st.sampled_from([b"0", b"..", b"\\u0000"]))
        data = data[:start] + piece + data[end:]
    return data


@steady
@given(JSON)
def test_json_that_is_written_is_read_back_as_it_was(value: Any) -> None:
    written = canonical_json.canonical(value)
    assert canonical_json.parse_canonical(written, "it") == value
    assert canonical_json.canonical(canonical_json.parse(written, "it")) == written


@steady
@given(ANY_JSON, st.booleans(), st.sampled_from([None, 1]))
def test_json_has_one_canonical_spelling(value: Any, escaped: bool, indent: int | None) -> None:
    data = json.dumps(value, ensure_ascii=escaped, indent=indent).encode(errors="surrogatepass")
    targets.strict_json(data)


@steady
@given(st.binary(max_size=60) | mutated(b'{"a":[1,1.5,"\\n"],"b":{"c":null}}'))
def test_bytes_are_json_of_one_spelling_or_refused(data: bytes) -> None:
    targets.strict_json(data)


def test_a_value_that_holds_itself_or_is_too_deep_is_the_callers_mistake() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Invalid, match="predicate"):
        canonical_json.plain(loop, "predicate")


@steady
@given(st.binary(max_size=100) | mutated(MANIFEST.encode()))
def test_bytes_are_a_manifest_of_one_spelling_or_refused(data: bytes) -> None:
    targets.manifest_blob(data)


NAMES = st.text(st.sampled_from("aAbBßsSéÉ.-/ \u0301\u212a\u01c5K"), min_size=1, max_size=6)


@steady
@given(st.lists(NAMES, min_size=2, max_size=6, unique=True))
def test_paths_are_apart_after_case_folding_however_far_from_each_other_they_sort(paths: list[str]) -> None:
    rows = [manifest.Entry(path, "0644", 1, "0" * 64) for path in paths]
    try:
        made = manifest.make_manifest(rows)
    except Malformed:
        return
    spelt: dict[str, tuple[str, bool]] = {}
    for entry in made.entries:
        names = entry.path.split("/")
        for depth in range(1, len(names) + 1):
            path, is_file = "/".join(names[:depth]), depth == len(names)
            known = spelt.setdefault(path.casefold(), (path, is_file))
            assert known == (path, False) or (is_file and known == (path, True))


@steady
@given(st.lists(NAMES, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_manifest_does_not_depend_on_the_order_of_files(paths: list[str], random: Any) -> None:
    rows = [manifest.Entry(path, "0644", 1, "0" * 64) for path in paths]
    shuffled = random.sample(rows, len(rows))

    def outcome(entries: list[manifest.Entry]) -> object:
        try:
            return manifest.make_manifest(entries)
        except Malformed:
            return None

    assert outcome(rows) == outcome(shuffled)


@steady
@given(st.binary(max_size=100) | mutated(ENVELOPE))
def test_bytes_are_a_record_or_refused(data: bytes) -> None:
    targets.record(data)


@steady
@given(mutated(STATEMENT))
def test_a_statement_is_a_record_or_refused(data: bytes) -> None:
    targets.statement(data)


@steady
@given(st.dictionaries(TEXT, JSON, max_size=4), st.dictionaries(TEXT, TEXT, max_size=4), TEXT)
def test_a_record_is_read_back_as_it_was_written(predicate: Any, labels: dict[str, str], kind: str) -> None:
    record = records.Record(
        KEY, RECORD.manifest, 1, 1, labels, RECORD.attachments, predicate_type=kind, predicate=predicate
    )
    try:
        data = records.encode(record)
    except Malformed:
        return
    assert records.parse(data, KEY) == record


@steady
@given(st.text(max_size=80) | st.from_regex(r"sha256:[0-9a-f]{64}\n?", fullmatch=True))
def test_a_digest_has_one_spelling(text: str) -> None:
    try:
        digits = hex_of(text)
    except Malformed:
        return
    assert digest_of(digits) == text
    assert is_hex(digits)
    assert len(digits) == 64
    assert digits.isascii()
    assert digits.isalnum()
    assert digits == digits.lower()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="properties-") as folder:
        yield Path(folder)


@steady
@given(st.binary(max_size=80) | mutated(b'{"pid": 7, "who": "me", "started": 1.5}'))
def test_a_lock_note_names_a_holder_or_nobody(data: bytes) -> None:
    targets.lock_note(data)


@pytest.mark.parametrize(
    "note",
    [
        pytest.param(b"[" * 4096, id="deep"),
        pytest.param(b'{"pid":1e400,"who":"x","started":1}', id="endless pid"),
        pytest.param(b'{"pid":1,"who":"x","started":1' + b"0" * 400 + b"}", id="huge start"),
        pytest.param(b'{"pid":NaN,"who":"x","started":1}', id="NaN"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"1" * 5000, id="digits"),
    ],
)
def test_a_lock_note_that_no_holder_wrote_names_nobody(tmp_path: Path, note: bytes) -> None:
    (tmp_path / "lock").write_bytes(note)
    assert locks._holder(tmp_path / "lock").who == "another process"


def test_the_words_of_a_lock_note_cannot_steer_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(json.dumps({"pid": 1, "who": "\x1b[2Jme\n", "started": 1.0}))
    assert locks._holder(tmp_path / "lock").who == "[2Jme"


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "long"])
def test_a_lock_that_is_not_its_holders_note_names_nobody_and_keeps_nobody_waiting(tmp_path: Path, kind: str) -> None:
    lock, note = tmp_path / "lock", json.dumps({"pid": 1, "who": "me", "started": 1.0})
    (tmp_path / "note").write_text(note)
    if kind == "pipe":
        os.mkfifo(lock)
    elif kind == "link":
        lock.symlink_to(tmp_path / "note")
    elif kind == "folder":
        lock.mkdir()
    else:
        lock.write_text(note + " " * 5000)
    assert locks._holder(lock).who == "another process"


def test_a_lock_note_without_a_sensible_time_began_now(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text('{"pid":1,"who":"x","started":1e400}')
    assert math.isfinite(locks._holder(tmp_path / "lock").started)


def test_the_longest_words_of_a_holder_are_read_back_from_its_note(tmp_path: Path) -> None:
    with locks.exclusive(tmp_path / "lock", who="\U0001f600" * 5000):
        assert locks._holder(tmp_path / "lock").who == "\U0001f600" * 300


@settings(steady, max_examples=100)
@given(st.binary(min_size=2, max_size=30))
def test_a_planted_index_row_is_a_miss_or_what_its_text_says(data: bytes) -> None:
    targets.index_row(data)


@settings(steady, max_examples=50)
@given(key=st.text(max_size=20), value=JSON)
def test_the_index_gives_back_what_was_put(place: Path, key: str, value: Any) -> None:
    index = Index(place / "index")
    index.put("t", key, value)
    encodable = not any("\ud800" <= character <= "\udfff" for character in key)
    assert index.get("t", key) == (value if encodable else None)


@steady
@given(st.binary(max_size=50), st.integers(0, 60))
def test_a_file_is_read_whole_or_not_at_all(place: Path, data: bytes, limit: int) -> None:
    (place / "file").write_bytes(data)
    assert read_bounded(place / "file", limit) == (data if len(data) <= limit else None)


FOLDERS = st.lists(
    st.lists(st.sampled_from(["a", "b", "c d", "é", "..."]), min_size=1, max_size=4), min_size=1, max_size=6
)


@settings(steady, max_examples=50)
@given(FOLDERS)
def test_a_walk_finds_each_file_once_in_order(files: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory(prefix="walk-") as folder:
        made = set()
        for names in files:
            path = Path(folder, *names)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue  # this name is a file, or a folder, already
            made.add("/".join(names))
        found = [name for name, _, _ in walk(Path(folder))]
        assert set(found) == made
        assert len(found) == len(made)
        (Path(folder) / "zz").symlink_to("/")
        with pytest.raises(Invalid, match="symbolic link"):
            list(walk(Path(folder)))


LINKS = st.binary(min_size=1, max_size=255).map(os.fsdecode)


@settings(steady, max_examples=100)
@given(LINKS | st.sampled_from(["n" * 255, "é" * 127, "\U0001f600" * 63, ".", "..", "a\0b"]))
def test_a_root_of_any_name_leads_through_its_link_to_the_tree(place: Path, name: str) -> None:
    assume("/" not in name)
    layout = Layout(place / "store", durable=False)
    tree = layout.tree("0f" * 32)
    link = place / "links" / name
    link.parent.mkdir(exist_ok=True)
    try:
        roots.add(layout, link, tree)
    except Invalid:
        assert name in (".", "..") or "\0" in name
        return
    entry = layout.roots / hash_bytes(os.fsencode(link.parent.resolve() / name))
    assert entry.readlink() == link.parent.resolve() / name
    assert link.readlink() == tree
    link.unlink()
