"""The bytes on disk: pinned, and refused when they are any others."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.support import KEY
from trtstore import Attachment, Record
from trtstore.errors import Malformed
from trtstore.format import canonical_json, manifest, record
from trtstore.format.canonical_json import canonical
from trtstore.format.manifest import Entry


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


ENTRIES = [
    Entry("sub/run.sh", "0755", 1, sha256(b"x")),
    Entry("engine.bin", "0644", 6, sha256(b"engine")),
    Entry("é.json", "0644", 2, sha256(b"{}")),
]
MANIFEST = (
    '{"entries":['
    '{"mode":"0644","path":"engine.bin","sha256":"ed9f6f25068608efd412958da4dfc19328ca3511251fa6d5f9c42baf230e32f8","size":6},'
    '{"mode":"0755","path":"sub/run.sh","sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","size":1},'
    '{"mode":"0644","path":"é.json","sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}'
    '],"schema":1}'
).encode()
DIGEST = "83e1ebe9f05cc2737ab01b56c94bd4d3d8fdd6db9355790b52df83cd669a436c"
STATEMENT = (
    '{"_type":"https://in-toto.io/Statement/v1",'
    '"predicate":{"seconds":1.5,"tags":["a",null,true]},"predicateType":"https://slsa.dev/provenance/v1",'
    '"subject":[{"annotations":{"attachments":{"log":{"digest":"sha256:836ff184e7b41b1e13cb5fd89fa1de98dbbab99e9d2918913ff43b86a5c7c213","size":3}},'
    '"bytes":9,"files":3,"labels":{"model":"tiny"}},'
    f'"digest":{{"sha256":"{DIGEST}"}},"name":"{KEY}"}}]}}'
).encode()
RECORD = Record(
    key=KEY,
    manifest=f"sha256:{DIGEST}",
    bytes=9,
    files=3,
    labels={"model": "tiny"},
    attachments={"log": Attachment(f"sha256:{sha256(b'log')}", 3)},
    predicate_type="https://slsa.dev/provenance/v1",
    predicate={"seconds": 1.5, "tags": ["a", None, True]},
)


def envelope(statement: bytes, /, **changes: Any) -> bytes:
    plain = {
        "payload": base64.b64encode(statement).decode(),
        "payloadType": record.PAYLOAD_TYPE,
        "signatures": [],
    }
    return json.dumps(plain | changes).encode()


def test_the_bytes_of_a_manifest_are_pinned() -> None:
    made = manifest.make_manifest(ENTRIES)
    assert made.encode() == MANIFEST
    assert made.digest == f"sha256:{DIGEST}"
    assert manifest.parse(MANIFEST) == made


def test_the_bytes_of_a_record_are_pinned() -> None:
    payload = base64.b64encode(STATEMENT).decode()
    written = f'{{"payload":"{payload}","payloadType":"application/vnd.in-toto+json","signatures":[]}}'
    assert record.encode(RECORD) == written.encode()
    assert record.parse(written.encode(), KEY) == RECORD


def test_a_signed_record_is_read() -> None:
    signed = envelope(STATEMENT, signatures=[{"keyid": "ed25519:team", "sig": "c2ln"}])
    assert record.parse(signed, KEY) == RECORD


def one_entry(**changes: Any) -> bytes:
    entry = {"path": "a", "mode": "0644", "size": 1, "sha256": "0" * 64}
    return canonical({"schema": 1, "entries": [entry | changes]})


@pytest.mark.parametrize(
    "data",
    {
        "another schema": MANIFEST.replace(b'"schema":1', b'"schema":2'),
        "schema true": MANIFEST.replace(b'"schema":1', b'"schema":true'),
        "an unknown field": MANIFEST.replace(b'"schema":1', b'"schema":1,"x":1'),
        "white space": MANIFEST.replace(b",", b", "),
        "a field given twice": MANIFEST.replace(b'"schema":1', b'"schema":1,"schema":1'),
        "not UTF-8": MANIFEST.replace("é".encode(), b"\xff"),
        "truncated": MANIFEST[:-1],
        "nested": b"[" * 100_000 + b"]" * 100_000,
        "NaN": MANIFEST.replace(b'"schema":1', b'"schema":NaN'),
        "no entries": canonical({"schema": 1, "entries": []}),
        "unsorted": canonical({"schema": 1, "entries": json.loads(MANIFEST)["entries"][::-1]}),
        "an entry twice": canonical({"schema": 1, "entries": json.loads(one_entry())["entries"] * 2}),
        "a mode with more bits": one_entry(mode="4755"),
        "a mode as a number": one_entry(mode=420),
        "a negative size": one_entry(size=-1),
        "a size that is no integer": one_entry(size=1.5),
        "upper-case hex": one_entry(sha256="A" * 64),
        "a short digest": one_entry(sha256="0" * 63),
    }.items(),
    ids=lambda case: case[0],
)
def test_a_manifest_with_this_is_refused(data: tuple[str, bytes]) -> None:
    with pytest.raises(Malformed):
        manifest.parse(data[1])


BAD_PATHS = {
    "": "empty",
    "/a": "absolute",
    "a/": "final slash",
    "a//b": "empty name",
    ".": "dot",
    "a/./b": "dot",
    "../a": "up",
    "a/../../b": "up",
    "a\\b": "backslash",
    "a\0b": "NUL",
    "a\nb": "control",
    "a\x85b": "control",
    "a\u2028b": "line separator",
    "e\u0301": "not NFC",
    "\udcff": "surrogate",
    "n" * 256: "long name",
    "/".join(["n" * 200] * 6): "long path",
}


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: ascii(path)[:20])
def test_a_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(Malformed):
        manifest.make_manifest([Entry(path, "0644", 1, "0" * 64)])
    if path != "\udcff":  # which has no JSON to begin with
        with pytest.raises(Malformed):
            manifest.parse(one_entry(path=path))


@pytest.mark.parametrize(
    "paths",
    [
        ("a", "a"),
        ("a", "A"),
        ("Foo/x", "foo/y"),
        ("a", "a/b"),
        ("A/b", "a"),
        ("straße", "STRASSE"),
        ("é/a", "É/b"),
    ],
)
def test_names_that_some_file_system_cannot_keep_apart_are_refused(paths: tuple[str, str]) -> None:
    for order in (paths, paths[::-1]):
        with pytest.raises(Malformed):
            manifest.make_manifest([Entry(path, "0644", 1, "0" * 64) for path in order])


NAMES = st.text(st.sampled_from("abAB.é/\\\0 ß\u0301"), min_size=0, max_size=8)
ANY_ENTRIES = st.lists(
    st.builds(
        Entry,
        path=NAMES,
        mode=st.sampled_from(["0644", "0755", "0777"]),
        size=st.integers(-1, 2**54),
        sha256=st.sampled_from(["0" * 64, "f" * 64, "F" * 64, ""]),
    ),
    max_size=5,
)


@given(ANY_ENTRIES)
def test_what_build_makes_parse_reads_and_build_refuses_what_parse_refuses(entries: list[Entry]) -> None:
    try:
        made = manifest.make_manifest(entries)
    except Malformed:
        made = None
    rows = [{"path": e.path, "mode": e.mode, "size": e.size, "sha256": e.sha256} for e in entries]
    rows.sort(key=lambda row: row["path"])
    try:
        read = manifest.parse(canonical({"schema": 1, "entries": rows}))
    except (Malformed, ValueError):
        read = None
    assert read == made


@given(st.dictionaries(st.text(st.sampled_from("abcdef.-_é /"), min_size=1, max_size=12), st.integers(0, 2**53 - 1)))
def test_accepted_paths_stay_inside_and_apart(sizes: dict[str, int]) -> None:
    try:
        made = manifest.make_manifest(Entry(path, "0644", size, "0" * 64) for path, size in sizes.items())
    except Malformed:
        return
    assert manifest.parse(made.encode()) == made
    for entry in made.entries:
        names = entry.path.split("/")
        assert all(name not in ("", ".", "..") for name in names)
        assert not any(other.path.startswith(entry.path + "/") for other in made.entries)
    assert len({entry.path.casefold() for entry in made.entries}) == len(made.entries)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(Malformed):
        manifest.parse(data)
    with pytest.raises(Malformed):
        record.parse(data, KEY)


@given(st.integers(0, len(MANIFEST) - 1), st.integers(0, 255))
def test_one_other_byte_gives_another_manifest_or_none(place: int, byte: int) -> None:
    data = MANIFEST[:place] + bytes([byte]) + MANIFEST[place + 1 :]
    try:
        read = manifest.parse(data)
    except Malformed:
        return
    assert read.encode() == data


def statement(**changes: Any) -> bytes:
    return canonical(json.loads(STATEMENT) | changes)


def subject(**changes: Any) -> bytes:
    return statement(subject=[json.loads(STATEMENT)["subject"][0] | changes])


def annotations(**changes: Any) -> bytes:
    return subject(annotations=json.loads(STATEMENT)["subject"][0]["annotations"] | changes)


@pytest.mark.parametrize(
    "data",
    {
        "another payload type": envelope(STATEMENT, payloadType="application/json"),
        "an unknown field": envelope(STATEMENT, extra=1),
        "broken base64": envelope(STATEMENT, payload="!!!!"),
        "base64 with a second spelling": envelope(STATEMENT, payload="e30" + "="),
        "url-safe base64": envelope(STATEMENT, payload="_-__"),
        "signatures of another form": envelope(STATEMENT, signatures=["x"]),
        "a payload that is not canonical": envelope(STATEMENT.replace(b",", b", ")),
        "another statement": envelope(statement(_type="https://in-toto.io/Statement/v0.1")),
        "no subject": envelope(statement(subject=[])),
        "two subjects": envelope(statement(subject=json.loads(STATEMENT)["subject"] * 2)),
        "another key": envelope(subject(name="0f" * 32)),
        "another digest": envelope(subject(digest={"sha512": "0" * 64})),
        "a digest that is a path": envelope(subject(digest={"sha256": "../../../etc/passwd"})),
        "a predicate that is no object": envelope(statement(predicate=[])),
        "an empty predicate type": envelope(statement(predicateType="")),
        "an unknown annotation": envelope(annotations(extra=1)),
        "totals that are text": envelope(annotations(bytes="9")),
        "no files": envelope(annotations(files=0)),
        "a label that is no text": envelope(annotations(labels={"a": 1})),
        "an attachment without a size": envelope(annotations(attachments={"log": {"digest": "sha256:" + "0" * 64}})),
        "an attachment that is a path": envelope(annotations(attachments={"log": {"digest": "../x", "size": 1}})),
        "too long": envelope(STATEMENT) + b" " * record.MAX_BYTES,
    }.items(),
    ids=lambda case: case[0],
)
def test_a_record_with_this_is_refused(data: tuple[str, bytes]) -> None:
    with pytest.raises(Malformed):
        record.parse(data[1], KEY)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"b":[true,false,null,-0.5,0.1,123456.789,1e+21,1e-7,0.000001,1234567890123456]}',
        '{"\\b\\f\\n\\r\\t\\u0000\\u001f\\"\\\\\x7f":"\u00e9\u20ac"}',
        '{"\U0001f600":1,"\ufffd":2}',
        "[9007199254740991,9007199254740992,100000000000000000000]",
    ],
)
def test_canonical_json_is_read_in_its_one_spelling(text: str) -> None:
    value = canonical_json.parse_canonical(text.encode(), "it")
    assert canonical_json.canonical(value) == text.encode()


@pytest.mark.parametrize(
    "text",
    ["[1.0]", "[1e21]", "[1e-07]", "[0.10]", "[1E5]", "[-0]", "[-0.0]", "[1e16]", "[0.0000001]", "[ 1]", "[1]\n",
     '{"b":1,"a":2}', '{"\ufffd":2,"\U0001f600":1}', '["\\u00e9"]', '["\\/"]', '["\\u001F"]', '["\\ud800"]',
     "[9007199254740993]", "[1e400]", "[NaN]", '{"a":1,"a":1}'],
)  # fmt: skip
def test_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        canonical_json.parse_canonical(text.encode(), "it")
