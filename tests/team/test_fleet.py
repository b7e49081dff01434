"""Three hosts with one S3 between them: they build a key once, outlive each other, and never overwrite."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.store.support import KEY
from tests.support.cli import TRTBUILD, Project
from tests.support.hosts import hosts, inside
from tests.support.seaweed import Seaweed
from tests.team.support import Place, machine, writer
from trtstore.remote.remote import record_name

ROOT = Path(__file__).parents[2]
BEAT = 1.5


@dataclass(frozen=True)
class Fleet:
    place: Place
    names: list[str]
    public: str
    folder: Path

    def start(self, number: int, seconds: float) -> Host:
        """The host of that number wants KEY, and would build for so long."""
        words = [
            self.folder / f"store{number}",
            self.place.url,
            KEY,
            self.public,
            BEAT,
            seconds,
            f"host{number}",
        ]
        return Host(inside(self.names[number], sys.executable, "-m", "tests.team.host", *words))


class Host:
    """A program on a host, and the lines that it says as they come."""

    def __init__(self, words: list[str]) -> None:
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._lines.put(line.rstrip())
        self._lines.put(None)

    def until(self, beginning: str) -> str:
        """The first line from here on that begins so."""
        while (line := self._lines.get(timeout=90)) is not None:
            if line.startswith(beginning):
                return line
        raise AssertionError(f"it ended with {self.process.wait()} and never said {beginning!r}")

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)


@pytest.fixture
def fleet(bucket: Place, seaweed: Seaweed, tmp_path: Path, monkeypatch) -> Iterator[Fleet]:
    public = writer("ci").public
    with hosts(3) as (gateway, names):
        words = ["--listen", gateway, "--target", f"{seaweed.host}:{seaweed.port}", "--chance", "0"]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.support.unsteady", *words],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as router:
            try:
                assert router.stdout is not None
                endpoint = f"http://{gateway}:{int(router.stdout.readline())}"
                monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
                yield Fleet(bucket, names, public, tmp_path)
            finally:
                router.kill()


def test_three_hosts_ask_at_once_and_one_builds(fleet: Fleet, tiny_llama: Path, tmp_path: Path) -> None:
    """The whole command line on each: one engine is built, two are fetched, and all three are the same."""
    words = [f"model.source={tiny_llama}", "quant=int8", "check=none", "output=json", "store.heartbeat=3"]
    words += ["store.write=true", f"store.team={fleet.place.url}", f"store.trusted=['{fleet.public}']"]
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "TRTSTORE_CONFIG")
    extra = {name: os.environ[name] for name in names}
    started = []
    for number, name in enumerate(fleet.names):
        (tmp_path / f"project{number}").mkdir()
        project = Project(tmp_path / f"project{number}")
        started.append(
            subprocess.Popen(
                inside(name, TRTBUILD, *words),
                env=project.environment(extra),
                cwd=project.root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ended = [each.communicate(timeout=240) for each in started]
    assert [each.returncode for each in started] == [0, 0, 0], [err for _, err in ended]
    documents = [json.loads(out) for out, _ in ended]
    assert Counter(document["outcome"] for document in documents) == {"built": 1, "hit-team": 2}
    assert len({document["digest"] for document in documents}) == 1


def test_a_builder_that_is_killed_is_followed_by_one_of_those_who_wait(fleet: Fleet) -> None:
    first = fleet.start(0, 60)
    first.until("building 1")
    others = [fleet.start(number, 0.2) for number in (1, 2)]
    said = [other.until("waiting") for other in others]
    assert all("ci on host0" in line and "left" in line for line in said)
    first.signal(signal.SIGKILL)
    died = time.monotonic()
    ended = [other.until("has") for other in others]
    took = time.monotonic() - died
    print(f"killed, taken over, built and fetched within {took:.1f} s: {took / BEAT:.1f} heartbeats")
    assert ended in (["has host1"] * 2, ["has host2"] * 2)  # one build between them


def test_a_builder_that_was_frozen_does_not_overwrite(fleet: Fleet, tmp_path: Path) -> None:
    frozen = fleet.start(0, 2)
    frozen.until("building 1")
    frozen.signal(signal.SIGSTOP)
    second = fleet.start(1, 0.2)
    second.until("building 2")
    assert second.until("pushed") == "pushed True held"
    record = fleet.place.get(record_name(KEY))
    frozen.signal(signal.SIGCONT)
    assert frozen.until("pushed").startswith("pushed False")
    assert fleet.place.get(record_name(KEY)) == record
    third = machine(tmp_path / "third", fleet.place, fleet.public)
    found = third.pull()
    assert (third.store.materialise(found).path / "engine").read_text() == "host1"
