"""A network that repeats, reorders, changes and loses what passes, and disks there that lose bits: hundreds of runs.

TRTBUILD_TEST_NETWORK_RUNS says how many (80 in CI). Whatever happens: no hit is wrong, what a push said is done is
there byte for byte, no record is torn, and whoever writes puts right what was damaged.
"""

from __future__ import annotations

import http.client
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.store.support import KEY, leftovers, read_tree
from tests.support.seaweed import Seaweed
from tests.team.support import Machine, Place, machine, make, writer
from tests.team.test_faults import files_of, key_of, unsteady
from trtstore.errors import StoreFailure
from trtstore.format.digest import hash_bytes
from trtstore.remote.connect import connect
from trtstore.remote.leases import Leases
from trtstore.remote.remote import blob_name
from trtstore.team import gc

RUNS = int(os.environ.get("TRTBUILD_TEST_NETWORK_RUNS", "80"))
SEED = int(os.environ.get("TRTBUILD_TEST_SEED", "0")) or random.randrange(1 << 30)
KEYS = 12
KINDS = "error,reset,truncate,latency,flip,garble,twice,late"


class Storm:
    """Some machines that write, some that read, and what is known of what is there. One run at a time a thread."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place, self.folder = place, folder
        self.signer = writer()
        self.pushed: set[int] = set()  # and not damaged since
        self.damaged: set[str] = set()
        self._turn = threading.Lock()
        self.made = self.machine("ci")
        for number in range(KEYS):
            make(self.made.store, folder / "in" / str(number), key_of(number), files_of(number))

    def machine(self, name: str) -> Machine:
        return machine(self.folder / name, self.place, self.signer.public)

    def run(self, number: int) -> str:
        dice = random.Random(SEED + number)
        which, what = dice.randrange(KEYS), dice.random()
        try:
            if what < 0.45:
                return self.push(f"ci{number % 5}", which)
            if what < 0.5:
                return self.damage(which)
            if what < 0.55:
                return self.collect(f"ci{number % 5}")
            return self.pull(f"dev{number % 7}", which)
        except StoreFailure:
            return "failed"

    def push(self, name: str, which: int) -> str:
        """By one of several: what one of them remembers another has yet to read."""
        ci = self.machine(name)
        if ci.store.lookup(key_of(which)) is None:
            ci.store.receive(key_of(which), self.made.store.envelope(key_of(which)), self.made.store)
        ci.team().push(ci.store, key_of(which), self.signer)
        with self._turn:
            self.pushed.add(which)
        return "pushed"

    def damage(self, which: int) -> str:
        data = files_of(which)["own.bin"]
        with self._turn:
            self.place.put(blob_name(hash_bytes(data)), data[:-1] + b"?")
            self.damaged.add(blob_name(hash_bytes(data)))
        return "damaged"

    def collect(self, name: str) -> str:
        ci = self.machine(name)
        gc.collect(ci.team(), ci.store._layout, gc.RetentionPolicy(None, None), dry_run=False)
        return "collected"

    def pull(self, name: str, which: int) -> str:
        dev = self.machine(name)
        record = dev.pull(key_of(which))
        if record is None:
            return "miss"
        assert read_tree(dev.store.materialise(record).path) == files_of(which)
        return "hit"

    def check(self) -> None:
        """What was said to be there is there; and what was damaged after that the next push puts right."""
        there = set(self.machine("whole").team().keys())
        for number in self.pushed:
            assert key_of(number) in there, f"seed {SEED}"
            for data in files_of(number).values():
                name = blob_name(hash_bytes(data))
                assert name in self.damaged or self.place.get(name) == data, f"seed {SEED}"
        whole = self.machine("whole")
        for number in range(KEYS):
            self.push("fresh", number)
            record = whole.pull(key_of(number))
            assert record is not None, f"seed {SEED}: {whole.told}"
            assert read_tree(whole.store.materialise(record).path) == files_of(number)
        for root in self.folder.glob("[cdfw]*"):
            assert leftovers(root) == []


def test_what_is_repeated_reordered_changed_or_lost_on_the_way_does_no_harm(
    bucket: Place, seaweed: Seaweed, tmp_path: Path, monkeypatch
) -> None:
    storm = Storm(bucket, tmp_path / "storm")
    with unsteady(seaweed.url, "--seed", str(SEED), "--chance", "0.15", "--kinds", KINDS) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with ThreadPoolExecutor(8) as pool:
            outcomes = Counter(pool.map(storm.run, range(RUNS)))
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweed.url)
    print(f"seed {SEED}, {RUNS} runs: {dict(outcomes)}")
    assert outcomes["pushed"] > RUNS // 10, f"seed {SEED}: the network was too bad to say anything"
    assert outcomes["hit"], f"seed {SEED}"
    storm.check()


def test_one_at_a_time_builds_where_beats_and_takes_come_twice_and_late(
    bucket: Place, seaweed: Seaweed, monkeypatch
) -> None:
    """What is done again later is done to the number of a lease that is over: the number above it counts."""
    inside, most = 0, 0
    turn = threading.Lock()
    built = 0

    def build(number: int) -> None:
        nonlocal inside, most, built
        leases = Leases(
            connect(bucket.url),
            owner="ci",
            host=f"host{number}",
            heartbeat=2.0,
            write=True,
            on_problem=lambda _: None,
        )
        with leases.hold(KEY, expected=lambda: None, look=lambda: None) as outcome:
            if outcome.held is None:
                return
            with turn:
                inside += 1
                most = max(most, inside)
                built += 1
            threading.Event().wait(0.3)
            with turn:
                inside -= 1

    with unsteady(seaweed.url, "--seed", str(SEED), "--chance", "0.5", "--kinds", "twice,late") as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        threads = [threading.Thread(target=build, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads), f"seed {SEED}"
    assert built == 4, f"seed {SEED}"
    assert most == 1, f"seed {SEED}"


class _Losing(BaseHTTPRequestHandler):
    """Hands on to the server at `port`; the answer to the first removal is lost, and then `between` happens."""

    protocol_version = "HTTP/1.1"
    port = 0
    between: Callable[[], None]
    lost = 0

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPConnection("127.0.0.1", self.port)
        upstream.request(self.command, self.path, body or None, dict(self.headers.items()))
        answer = upstream.getresponse()
        data = answer.read()
        status, cls = answer.status, type(self)
        if (self.command == "DELETE" or self.path.endswith("?delete")) and not cls.lost:
            cls.lost += 1
            cls.between()
            status, data = 503, b"<Error><Code>SlowDown</Code></Error>"
        self.send_response_only(status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve


def test_a_removal_whose_answer_was_lost_is_not_repeated_on_what_came_since(
    bucket: Place, seaweed: Seaweed, monkeypatch
) -> None:
    direct = connect(bucket.url)
    direct.create("v1/a", b"first")
    direct.create("v1/b", b"first")

    class Handler(_Losing):
        port = seaweed.port

        @staticmethod
        def between() -> None:
            direct.replace("v1/a", b"a push came in between")

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        objects = connect(bucket.url)
        objects.delete("v1/a")
        objects.delete("v1/b")
        server.shutdown()
    assert Handler.lost == 1
    assert direct.read("v1/a", 100) == b"a push came in between"
    assert direct.read("v1/b", 100) is None
