"""What a team store that does not answer costs: a hit of the local store nothing before it answers, else its deadline.

Bounds are generous: they tell "ends" from "hangs", and nothing finer.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.store.support import KEY
from tests.support.cli import TRTBUILD, Project
from tests.support.seaweed import Seaweed
from tests.team.support import TRTSTORE, Place, believer, machine, make, user, writer
from tests.team.test_faults import running, unsteady
from trtstore import Store, deadlines
from trtstore.errors import NotWritable, Silent, StoreFailure, Unreachable
from trtstore.format.digest import hex_of
from trtstore.marks import revocations
from trtstore.remote.connect import connect
from trtstore.remote.leases import Leases
from trtstore.team import gc, signing

SLACK = 60.0  # seconds: a machine may be slow, and a server that is waited for without a bound would take for ever
BUILD = ("until=network", "compiler=onnxruntime")


class Mute:
    """A server that takes requests and says nothing, or a head and then a byte now and then."""

    def __init__(self, *, dribbles: bool) -> None:
        self._dribbles = dribbles
        self.requests = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._over = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._over.set()
        self._server.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            self.requests += 1
            if self._dribbles:
                connection.sendall(
                    b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nETag: "a"\r\n'
                    b"Last-Modified: Mon, 30 Nov 2026 15:00:00 GMT\r\n\r\n"
                )
            while not self._over.wait(0.3):
                if self._dribbles:
                    connection.sendall(b"{")


@pytest.fixture(params=["silent", "dribbling"])
def mute(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mute]:
    found = Mute(dribbles=request.param == "dribbling")
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
    yield found
    found.close()


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + SLACK / 6


@pytest.mark.parametrize(
    "ask",
    [
        lambda objects: objects.read("v1/a", 1 << 20),
        lambda objects: list(objects.listed("v1/")),
        lambda objects: objects.create("v1/a", b"a"),
        lambda objects: objects.replace("v1/a", b"a"),
        lambda objects: objects.upload("v1/a", iter((b"a" * 1000,)), 1000),
    ],
    ids=["read", "listed", "create", "replace", "upload"],
)
def test_each_question_ends_with_the_deadline(mute: Mute, ask: Callable[..., object]) -> None:
    with bounded(3), pytest.raises((Unreachable, NotWritable), match=r"in time|more bytes|other bytes"):
        ask(connect("s3://b/x", 1.0))
    assert mute.requests


def test_one_deadline_counts_for_all_that_is_asked_within_it(mute: Mute) -> None:
    objects = connect("s3://b/x", 30.0)
    with bounded(1), deadlines.deadline(1.0):
        for _ in range(20):
            with pytest.raises(Silent):
                objects.read("v1/a", 1 << 20)
        with deadlines.Pool(4) as pool, pytest.raises(Silent):
            list(pool.map(lambda _: objects.read("v1/a", 1), range(9)))
    assert mute.requests < 5


def test_who_waits_for_a_build_or_holds_its_lease_does_not_hang(mute: Mute) -> None:
    told: list[str] = []
    for write in (True, False):
        leases = Leases(
            connect("s3://b/x"),
            owner="ci",
            host="a",
            heartbeat=15,
            write=write,
            patience=1,
            on_problem=told.append,
        )
        with bounded(2), leases.hold(KEY, expected=lambda: None, look=lambda: None) as outcome:
            assert outcome.held is None
    assert len(told) == 2
    assert mute.requests


def of_clouds() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def built(folder: Path, model: Path) -> tuple[Project, list[str]]:
    """A machine that has an engine, without a team store; and the words that ask for it."""
    folder.mkdir()
    project, words = Project(folder), [f"model.source={model}", *BUILD]
    done = project.trtbuild(*words)
    assert done.code == 0, done.err
    return project, words


def test_a_hit_of_our_own_store_answers_before_anything_is_asked(mute: Mute, tmp_path, tiny_llama) -> None:
    project, words = built(tmp_path / "dev", tiny_llama)
    words += ["store.team=s3://b/x"]
    with subprocess.Popen(
        [TRTBUILD, *words],
        env=project.environment(of_clouds()),
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert Path(process.stdout.readline().strip()).is_dir()
        assert mute.requests == 0
        _, told = process.communicate(timeout=SLACK)
    assert process.returncode == 0
    assert "going on without the team store" in told
    assert mute.requests
    before = mute.requests
    assert project.trtbuild(*words, env=of_clouds()).code == 0
    assert mute.requests == before  # that it was asked in vain is remembered, too


def test_fetch_ends_with_exit_code_4_where_the_team_s_store_is_silent(mute: Mute, tmp_path, tiny_llama) -> None:
    (tmp_path / "dev").mkdir()
    words = [f"model.source={tiny_llama}", *BUILD, "store.team=s3://b/x", "store.patience=1"]
    with bounded(SLACK):
        done = Project(tmp_path / "dev").trtbuild("fetch", *words, env=of_clouds())
    assert done.code == 4
    assert "does not answer in time" in done.err
    assert mute.requests


def test_what_was_given_and_is_revoked_is_told_with_exit_code_4(
    shared_folder: Place, tmp_path: Path, tiny_llama: Path
) -> None:
    signer = writer("ci")
    dev = believer(tmp_path / "dev", shared_folder, signer)
    words = [f"model.source={tiny_llama}", *BUILD]
    first = dev.trtbuild(*words, "output=json", TRTBUILD_TEAM="")
    assert first.code == 0, first.err
    digest = first.json["digest"]
    data = signing.sign(revocations.statement(digest, "wrong scales"), signer).encode()
    shared_folder.put(f"v1/revoked/{hex_of(digest)}", data)
    given = dev.trtbuild(*words)
    assert Path(given.out.strip()).is_dir()  # it did not wait
    assert given.code == 4
    assert "wrong scales" in given.err
    assert "must not be used" in given.err
    anew = dev.trtbuild("fetch", *words)
    assert anew.code in (3, 4)
    assert anew.out == ""


def test_that_nobody_could_say_for_a_day_what_was_revoked_is_told(
    shared_folder: Place, tmp_path: Path, tiny_llama: Path
) -> None:
    dev = believer(tmp_path / "dev", shared_folder, writer("ci"))
    words = [f"model.source={tiny_llama}", *BUILD]
    assert dev.trtbuild(*words).code == 0
    with_index = Store.open(dev.project.store).index
    with_index.put("learnt", shared_folder.url, time.time() - 3 * 86_400)
    with_index.put("asked", shared_folder.url, time.time() - 1000)
    assert shared_folder.folder is not None
    shared_folder.folder.rename(tmp_path / "away")
    done = dev.trtbuild(*words)
    assert done.code == 0
    assert "for 3 days" in done.err
    (tmp_path / "away").rename(shared_folder.folder)
    with_index.put("asked", shared_folder.url, time.time() - 1000)
    assert "for 3 days" not in dev.trtbuild(*words).err


@pytest.mark.parametrize("step", [-10 * 365 * 86_400, 10 * 365 * 86_400], ids=["back", "on"])
def test_a_clock_that_was_set_asks_again(shared_folder: Place, tmp_path: Path, tiny_llama: Path, step: float) -> None:
    """What was asked in a time to come, or long ago, was not asked just now."""
    dev = believer(tmp_path / "dev", shared_folder, writer("ci"))
    words = [f"model.source={tiny_llama}", *BUILD]
    assert dev.trtbuild(*words).code == 0
    index = Store.open(dev.project.store).index
    index.put("asked", shared_folder.url, time.time() + step)
    assert dev.trtbuild(*words).code == 0
    asked = Store.open(dev.project.store).index.get("asked", shared_folder.url)
    assert isinstance(asked, float)
    assert abs(asked - time.time()) < 1000


@pytest.mark.parametrize("way", ["up", "down"])
def test_bytes_that_stop_coming_or_going_end_the_transfer(bucket, seaweed: Seaweed, tmp_path, monkeypatch, way) -> None:
    """And the same transfer works once the network is back."""
    signer = writer()
    ci = machine(tmp_path / "ci", bucket, signer.public)
    make(ci.store, tmp_path / "in", files={"large.bin": os.urandom(60 << 20)})
    if way == "down":
        ci.team().push(ci.store, KEY, signer)
    dev = machine(tmp_path / "dev", bucket, signer.public)
    with unsteady(seaweed.url, "--chance", "0") as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        proxy = running[-1]
        at = time.monotonic()

        def stop(done: int, _whole: int) -> None:
            nonlocal at
            if done > 4 << 20 and at:
                os.kill(proxy, signal.SIGSTOP)
                at = 0.0

        team = (ci if way == "up" else dev).patient(1.0)
        began = time.monotonic()
        try:
            with pytest.raises(StoreFailure):
                if way == "up":
                    team.push(ci.store, KEY, signer, stop)
                else:
                    dev.store.receive(KEY, team.envelope(KEY), team, stop)
            assert time.monotonic() - began < SLACK
        finally:
            os.kill(proxy, signal.SIGCONT)
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweed.url)
    if way == "up":
        assert ci.team().push(ci.store, KEY, signer).new
    assert dev.pull() is not None


def test_a_slow_link_that_lives_is_waited_for(bucket, seaweed: Seaweed, tmp_path, monkeypatch) -> None:
    signer = writer()
    ci = machine(tmp_path / "ci", bucket, signer.public)
    make(ci.store, tmp_path / "in", files={"large.bin": os.urandom(12 << 20)})
    dev = machine(tmp_path / "dev", bucket, signer.public)
    with unsteady(seaweed.url, "--chance", "0", "--rate", str(4 << 20)) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert ci.patient(1.0).push(ci.store, KEY, signer).new  # three times as long as a question may take
        team = dev.patient(1.0)
        assert dev.store.receive(KEY, team.envelope(KEY), team).new


YEAR = 365 * 86_400.0


@pytest.mark.parametrize("years", [-30, 30])
def test_a_collector_goes_by_the_clock_of_the_place(place: Place, tmp_path: Path, monkeypatch, years: int) -> None:
    """One whose own clock is years ahead would find all too old, and take what a push is about to name."""
    signer = writer()
    ci = machine(tmp_path / "ci", place, signer.public)
    make(ci.store, tmp_path / "in")
    ci.team().push(ci.store, KEY, signer)
    connect(place.url).create(f"v1/blobs/sha256/aa/{'aa' * 32}", b"of a push that is on its way")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + years * YEAR)
    team = ci.team()
    assert gc.collect(team, ci.store._layout, gc.RetentionPolicy(10**12, 90), dry_run=False) == []
    assert gc.collect(team, ci.store._layout, gc.RetentionPolicy(10**12, 90), dry_run=True) == []


SKEW = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *found) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(clock, found);
    if (!done && clock == CLOCK_REALTIME) found->tv_sec += atol(getenv("SKEW"));
    return done;
}
"""


@pytest.mark.parametrize("skew", [-3600, int(YEAR)])
def test_a_clock_that_the_server_refuses_is_told_as_that(bucket: Place, tmp_path: Path, skew: int) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler: the clock of a process cannot be set")
    library = tmp_path / "skew.so"
    (tmp_path / "skew.c").write_text(SKEW)
    words = [compiler, "-shared", "-fPIC", "-o", library, tmp_path / "skew.c", "-ldl"]
    subprocess.run(words, check=True)
    dev = user(tmp_path / "dev", bucket)
    done = subprocess.run(
        [TRTSTORE, "ls", "--team"],
        env={
            **dev.project.environment(dev.environment),
            "TRTSTORE_TEAM": bucket.url,
            "LD_PRELOAD": str(library),
            "SKEW": str(skew),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "clock here and the server's differ" in done.stderr
    assert "set this machine's clock" in done.stderr
