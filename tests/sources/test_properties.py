"""What holds for any folder and any bytes: one selection, one identity, and no other error than InputError."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.sources.samples import gguf, safetensors, string, vocabulary
from trtbuild.errors import InputError
from trtbuild.formats import gguf as gguf_header
from trtbuild.formats import safetensors as safetensors_header
from trtbuild.formats.weight_file import read_file
from trtbuild.sources import SourceFile, identity, select

NAMES = [*select.SMALL, select.WEIGHTS, select.INDEX, "a.gguf", "b.gguf", "c-00001-of-00002.gguf"]
NAMES += ["c-00002-of-00002.gguf", "README.md", "pytorch_model.bin", "x.safetensors", "y.safetensors"]
SHARDS = st.lists(st.sampled_from(["x.safetensors", "y.safetensors", "../x.safetensors", "/etc/passwd"]), max_size=3)


@given(st.sets(st.sampled_from(NAMES)), SHARDS)
def test_selection(names: set[str], shards: list[str]) -> None:
    listing = select.FileListing(names, "here", "model.source=here", "name one")
    index = json.dumps({"weight_map": {str(n): name for n, name in enumerate(shards)}}).encode()
    try:
        chosen = select.choose(listing, lambda _name: index)
    except InputError as refused:
        assert refused.hint
        return
    assert set(chosen.values()) <= names  # nothing that is not there, so nothing outside
    assert "README.md" not in chosen and "pytorch_model.bin" not in chosen
    if select.WEIGHTS in names or select.INDEX in names:
        assert all(name == real for name, real in chosen.items())
        weights = {name for name in chosen if name.endswith(".safetensors")}
        assert weights == ({select.WEIGHTS} if select.WEIGHTS in names else set(shards))
        assert {name for name in names if name in select.SMALL} <= set(chosen)
    else:
        assert all(name.startswith("model") and name.endswith(".gguf") for name in chosen)


FILES = st.lists(
    st.builds(SourceFile, st.text(st.characters(codec="utf-8")), st.integers(0, 1 << 50), st.text("0123456789abcdef")),
    unique_by=lambda file: file.path,
)  # fmt: skip


@given(FILES, st.randoms(use_true_random=False))
def test_identity_is_of_the_set_of_files(files: list[SourceFile], random: object) -> None:
    shuffled = files.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis's own Random
    assert identity(shuffled) == identity(files)
    for n in range(len(files)):
        assert identity(files[:n] + files[n + 1 :]) != identity(files)


def test_identity_is_pinned() -> None:
    """Every key of every store hangs on it: written out here as any JSON library would have it."""
    files = [SourceFile("ä.json", 1, "00" * 32), SourceFile("model.gguf", 98362432, "b1" * 32)]
    text = '[["model.gguf",98362432,"' + "b1" * 32 + '"],["ä.json",1,"' + "00" * 32 + '"]]'
    assert identity(files) == hashlib.sha256(text.encode()).hexdigest()


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` with some bytes replaced, then cut or lengthened."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 8))):
        data[draw(st.integers(0, min(len(data), 400) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) + draw(st.binary(max_size=16))


GGUF = gguf(string("k") + b"\x00\x00\x00\x00\x01", vocabulary(5), padding=64)
SAFETENSORS = safetensors("a", "b", "c", size=16)


@settings(max_examples=400)
@given(st.one_of(st.binary(), mutated(GGUF), st.binary().map(lambda tail: b"GGUF\x03\0\0\0" + tail)))
@example(GGUF)
def test_a_gguf_header_is_read_or_refused(data: bytes) -> None:
    asked: list[int] = []

    def read(count: int) -> bytes:
        asked.append(count)
        return data[:count]

    try:
        name = gguf_header.read_architecture(read, len(data), "m.gguf", "model.source=m.gguf")
    except InputError as refused:
        assert "m.gguf" in refused.message and refused.hint
    else:
        assert name.isascii() and 0 < len(name) <= 64
    assert max(asked) <= 1 << 24


@settings(max_examples=250)
@given(st.one_of(st.binary(), mutated(SAFETENSORS)))
@example(SAFETENSORS)
def test_a_safetensors_header_is_whole_or_refused(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(data)
        file.flush()
        try:
            read_file(safetensors_header.read_header, Path(file.name), file.name, "model.source=m")
        except InputError as refused:
            assert file.name in refused.message and refused.hint
        else:
            assert len(data) >= 10
