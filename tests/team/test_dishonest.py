"""A real server that ignores `If-None-Match: *` (nanio): it is caught before anything is written to it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.support import KEY
from tests.support.seaweed import free_ports
from tests.team.support import Place, machine, make, writer
from trtbuild.config.schema import StoreConf
from trtbuild.doctor import team
from trtstore.errors import NotWritable
from trtstore.remote.remote import record_name

NANIO = Path(sys.executable).with_name("nanio")


@pytest.fixture
def nanio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    if not NANIO.exists():
        pytest.skip("nanio is not installed: there is no dishonest server to catch")
    port, data = free_ports(1)[0], tmp_path / "nanio"
    (data / "bucket").mkdir(parents=True)
    words = ["--data-dir", data, "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    environment = {**os.environ, "NANIO_ACCESS_KEY": "somebody", "NANIO_SECRET_KEY": "somebody-secret"}
    with subprocess.Popen([NANIO, "serve", *words], env=environment, cwd=tmp_path) as server:
        try:
            _wait(port)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "somebody-secret")
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            yield Place("s3://bucket/x", folder=data / "bucket" / "x")
        finally:
            server.kill()


def _wait(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return


def test_it_is_read_and_never_written_to(nanio: Place, tmp_path: Path) -> None:
    signer = writer()
    ci = machine(tmp_path / "ci", nanio, signer.public)
    make(ci.store, tmp_path / "in")
    with pytest.raises(NotWritable, match="ignores conditional writes") as caught:
        ci.team().push(ci.store, KEY, signer)
    assert "can be read" in (caught.value.hint or "")
    assert not nanio.has(record_name(KEY))

    # What an honest server holds, copied there as it is, can be read all the same.
    honest = Place((tmp_path / "honest").as_uri(), folder=tmp_path / "honest")
    (tmp_path / "honest").mkdir()
    machine(tmp_path / "ci", honest, signer.public).team().push(ci.store, KEY, signer)
    for path in (tmp_path / "honest").rglob("*"):
        if path.is_file():
            nanio.put(str(path.relative_to(tmp_path / "honest")), path.read_bytes())
    assert machine(tmp_path / "dev", nanio, signer.public).pull() is not None


def test_the_doctor_tells_who_is_to_write_to_it(nanio: Place) -> None:
    (found,) = team.check(StoreConf(team=nanio.url, write=True))
    assert found.failed
    assert "ignores conditional writes" in found.words
    (reader,) = team.check(StoreConf(team=nanio.url))
    assert reader.state == "ok"
