"""What strangers say of files on the Hub, mutated: lists, headers, and what was remembered of both.

Each ends in a value that is sound or in its own error, and soon.
"""

from __future__ import annotations

import json
import os
import random
import struct
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.sources.samples import checkpoint, gguf, safetensors, string, vocabulary
from trtbuild.errors import InputError
from trtbuild.formats import gguf as gguf_header
from trtbuild.formats import safetensors as safetensors_header
from trtbuild.formats.weight_file import TensorInfo
from trtbuild.sources.hub import commit as hub_commit
from trtbuild.sources.hub import headers, listing
from trtbuild.sources.hub.commit import Commit, HubFile
from trtbuild.sources.hub.location import Location

LOCATION = Location("org/name", None, None)
SHA = "c" * 40
#: what stands in place of a value, as JSON writes it
VALUES = [
    b"null", b"true", b"-1", b"0", b"1.5", b"1e999", b"NaN", b"9" * 400, b"9" * 5000, b"9007199254740992", b'""',
    b"[]", b"{}", b'"../x"', b'"\\ud800"', b'"a\\u0000b"', b'"/x"', b'"x"',
    b"[" * 5000, b'{"a":' * 3000, b'"' + b"x" * 2000 + b'"',
    b'"' + b"A" * 64 + b'"', b'"' + b"a" * 40 + b'"',
]  # fmt: skip
NUMBERS = [0, 1, 8, 9, 255, 65536, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1]


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Bytes changed, taken away and put in, and numbers of eight bytes in place of what is there."""
    found = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(max(1, len(found)))
        match draw.randrange(5):
            case 0:
                found[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del found[at : at + draw.randint(1, 20)]
            case 2:
                found[at:at] = draw.choice(VALUES)
            case 3:
                found[at : at + 8] = struct.pack("<Q", draw.choice(NUMBERS))
            case _:
                del found[at:]
    return bytes(found)


def valued(text: bytes, draw: random.Random) -> bytes:
    """JSON with another value in some places."""
    starts = [at for at in range(len(text)) if text[at - 1 : at] in (b":", b"[", b",")]
    for at in sorted(draw.sample(starts, min(len(starts), draw.randint(1, 2))), reverse=True):
        end = next((place for place in range(at, len(text)) if text[place : place + 1] in b",}]"), len(text))
        text = text[:at] + draw.choice(VALUES) + text[end:]
    return text


def sound(commit: Commit) -> None:
    assert hub_commit.is_git_id(commit.sha)
    assert len({file.name for file in commit.files}) == len(commit.files)
    for file in commit.files:
        assert not set(file.name.split("/")) & {"", ".", ".."}
        assert file.name.isascii() or file.name.encode()
        assert type(file.size) is int
        assert 0 <= file.size < 2**53


ROWS = [
    {"rfilename": name, "size": len(data), "blobId": "b" * 40, "lfs": {"sha256": "a" * 64, "size": 9}}
    for name, data in sorted(checkpoint().items())
]
LISTING = json.dumps({"sha": SHA, "siblings": ROWS}, separators=(",", ":")).encode()


@pytest.mark.parametrize("change", [mutated, valued])
def test_lists_of_files(change: Callable[[bytes, random.Random], bytes]) -> None:
    read = 0
    for seed in range(1500):
        try:
            sound(listing.parsed(LOCATION, change(LISTING, random.Random(seed))))
            read += 1
        except ValueError:  # of which Unsound is one
            continue
    assert 0 < read < 1500


@pytest.mark.parametrize("change", [mutated, valued])
def test_what_is_remembered_of_a_commit(tmp_path: Path, change: Callable[[bytes, random.Random], bytes]) -> None:
    commit = Commit("org/name", SHA, (HubFile("config.json", 3, None, "b" * 40), HubFile("x/y", 5, "a" * 64, None)))
    rows = {"model.safetensors": {"a": TensorInfo("F32", (2, 3)), "b": TensorInfo("F16", ())}}
    hub_commit.remember(tmp_path, commit)
    headers.remember(tmp_path, commit, rows)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    assert len(kept) == 2
    for seed in range(300):
        for path, text in kept.items():
            path.write_bytes(change(text.replace(b": ", b":").replace(b", ", b","), random.Random(seed)))
        found = hub_commit.recall(tmp_path, "org/name", SHA)
        if found is not None:
            sound(found)
        for entries in (headers.recall(tmp_path, commit, list(rows)) or {}).values():
            for entry in entries.values():
                assert isinstance(entry.kind, str)
                assert all(0 <= size < 2**63 for size in entry.shape)
    assert asdict(commit)["files"]


def test_a_pipe_in_the_memory_is_not_waited_for(tmp_path: Path) -> None:
    commit = Commit("org/name", SHA, ())
    hub_commit.remember(tmp_path, commit)
    headers.remember(tmp_path, commit, {})
    for path in list(tmp_path.rglob("*.json")):
        path.unlink()
        os.mkfifo(path)
    assert hub_commit.recall(tmp_path, "org/name", SHA) is None
    assert headers.recall(tmp_path, commit, []) is None


def many(kind: int, item: int, count: int) -> bytes:
    """A metadata pair that says to hold an array of so many values."""
    return string("x") + struct.pack("<IIQ", kind, item, count) + bytes(64)


HEADS = [
    gguf(vocabulary(50)),
    gguf(string("llama.block_count") + struct.pack("<II", 4, 2)),
    *(gguf(many(9, item, count)) for item in (0, 5, 8, 9, 12, 99) for count in NUMBERS),
    *(b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + bytes(4096) for tensors in NUMBERS for pairs in NUMBERS),
    b"GGUF" + struct.pack("<IQQ", 3, 2**64 - 1, 0) + (bytes(8) + struct.pack("<I", 0) + bytes(12)) * 100_000,
]


def as_gguf(data: bytes) -> None:
    for reader in (gguf_header.read_architecture, gguf_header.read_header, gguf_header.read_metadata):
        read: Any = reader
        read(lambda count: data[:count], len(data), "m.gguf", "model.source")


def as_safetensors(data: bytes) -> None:
    found = safetensors_header.read_header(lambda count: data[:count], len(data), "m.safetensors", "model.source")
    assert all(0 <= tensor.begin <= tensor.end <= len(data) for tensor in found.values())


def weights(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(64)


@pytest.mark.parametrize(
    ("read", "good"),
    [
        (as_gguf, HEADS),
        (as_safetensors, [safetensors("a", "b"), *(weights(b'{"a":1}', length) for length in NUMBERS)]),
    ],
    ids=["gguf", "safetensors"],
)
def test_headers_of_weights(read: Callable[[bytes], None], good: list[bytes]) -> None:
    begun = time.monotonic()
    for seed in range(1000):
        draw = random.Random(seed)
        whole = good[seed % len(good)]
        data = whole if seed < len(good) else mutated(whole[:4096], draw) + whole[4096:]
        try:
            read(data)
        except InputError as error:
            assert error.hint
    assert time.monotonic() - begun < 120
