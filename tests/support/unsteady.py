"""A proxy that stands between a client and a real HTTP server and does what networks do; a program of its own.

    python -m tests.support.unsteady --target 127.0.0.1:8333 --seed 7 --chance 0.3 --kinds error,reset,truncate

prints `<port>` once it listens. One request a connection, so that each meets its own fate:

    error      the server says 500 or 503, and perhaps did what it was asked all the same
    reset      the connection is reset before, in or after the answer
    truncate   the answer ends in its middle, as if that were its end
    stall      nothing comes for a second, in the middle
    latency    200 ms before the request, and before the answer
    flip       one bit of what is put there is another
    garble     one bit of what is read from there is another
    twice      what changes something is done twice, and the second answer is the one that counts
    late       what changes something is done, and done again a while after its answer

`--rate` is how many bytes a second pass in each direction, all connections together.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import socket
import socketserver
import struct
import sys
import threading
import time

KINDS = ("error", "reset", "truncate", "stall", "latency", "flip", "garble", "twice", "late")
CHANGING = (b"PUT", b"POST", b"DELETE")
CHUNK = 1 << 16


class Broken(Exception):
    """The connection ends here."""


class Proxy(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, listen: str, target: str, seed: int, chance: float, kinds: list[str], rate: float) -> None:
        self.target = (target.rpartition(":")[0], int(target.rpartition(":")[2]))
        self._random, self._turn = random.Random(seed), threading.Lock()
        self._chance, self._kinds = chance, kinds
        self._rate, self._free = rate, {"up": 0.0, "down": 0.0}
        super().__init__((listen, 0), Handler)

    def fate(self) -> tuple[str, float]:
        """What happens to a request, and where in it (0 to 1)."""
        with self._turn:
            kind = self._random.choice(self._kinds) if self._random.random() < self._chance else "none"
            return kind, self._random.random()

    def pace(self, way: str, count: int) -> None:
        """Wait until `count` bytes more may pass."""
        if self._rate:
            with self._turn:
                now = time.monotonic()
                self._free[way] = free = max(self._free[way], now) + count / self._rate
            time.sleep(free - now)


class Handler(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        try:
            self._serve()
        except (Broken, OSError):
            return

    def _serve(self) -> None:
        head, body = _head(self.request)
        kind, where = self.server.fate()
        if kind == "latency":
            time.sleep(0.2)
        if kind == "reset" and where < 0.3:
            self._reset()
        with socket.create_connection(self.server.target, timeout=60) as upstream:
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
            upstream.sendall(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n")
            if kind == "error" and where < 0.5:
                self._drain(body, _length(head), None)
                self._refuse(where)
                return
            if kind in ("flip", "garble", "twice", "late"):
                self._change(upstream, kind, where, (lines, body), _length(head))
                return
            self._drain(body, _length(head), upstream)
            if kind == "latency":
                time.sleep(0.2)
            self._answer(upstream, kind, where)

    def _change(
        self,
        upstream: socket.socket,
        kind: str,
        where: float,
        request: tuple[list[bytes], bytes],
        length: int,
    ) -> None:
        lines, body = request
        while len(body) < length:
            more = self.request.recv(CHUNK)
            if not more:
                raise Broken
            body += more
        verb = lines[0].split()[0]
        upstream.sendall(_flipped(body, where) if kind == "flip" and verb == b"PUT" else body)
        whole = b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body
        again = verb in CHANGING
        answer = _all_of(upstream)
        if kind == "twice" and again:
            answer = self._done(whole)
        head, _, data = answer.partition(b"\r\n\r\n")
        if kind == "garble" and verb == b"GET":
            data = _flipped(data, where)
        self.request.sendall(head + b"\r\n\r\n" + data)
        if kind == "late" and again:
            self.request.close()
            time.sleep(0.2 + 2 * where)
            self._done(whole)

    def _done(self, whole: bytes) -> bytes:
        """The server's answer to a request that it has had before."""
        with socket.create_connection(self.server.target, timeout=60) as upstream:
            upstream.sendall(whole)
            return _all_of(upstream)

    def _drain(self, body: bytes, length: int, upstream: socket.socket | None) -> None:
        """The request's body to the server, or to nobody."""
        while True:
            if upstream is not None and body:
                self.server.pace("up", len(body))
                upstream.sendall(body)
            length -= len(body)
            if length <= 0:
                return
            body = self.request.recv(CHUNK)
            if not body:
                raise Broken

    def _answer(self, upstream: socket.socket, kind: str, where: float) -> None:
        first = upstream.recv(CHUNK)
        if kind == "error":  # it was done, and who asked is told that it was not
            self._refuse(where)
            return
        if kind == "reset" and where < 0.6:
            self._reset()
        whole = _length(first) + first.find(b"\r\n\r\n") + 4
        limit = int(whole * where) if kind in ("truncate", "reset", "stall") else None
        sent, data = 0, first
        while data:
            if limit is not None and sent + len(data) > limit:
                self.request.sendall(data[: limit - sent])
                if kind == "reset":
                    self._reset()
                if kind == "truncate":
                    return
                time.sleep(1.0)
                data, sent, limit = data[limit - sent :], limit, None
            self.server.pace("down", len(data))
            self.request.sendall(data)
            sent += len(data)
            data = upstream.recv(CHUNK)

    def _refuse(self, where: float) -> None:
        status = b"503 Slow Down" if where * 10 % 1 < 0.5 else b"500 Internal Server Error"
        code = b"<Error><Code>SlowDown</Code></Error>"
        self.request.sendall(
            b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(code), code)
        )

    def _reset(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()
        raise Broken


def _head(request: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        more = request.recv(CHUNK)
        if not more:
            raise Broken
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def _flipped(data: bytes, where: float) -> bytes:
    if not data:
        return data
    at = int(len(data) * where)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _all_of(upstream: socket.socket) -> bytes:
    return b"".join(iter(lambda: upstream.recv(CHUNK), b""))


def _length(head: bytes) -> int:
    found = re.search(rb"(?im)^content-length:\s*(\d+)", head)
    return int(found[1]) if found else 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="127.0.0.1")
    parser.add_argument("--target", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chance", type=float, default=0.3)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--rate", type=float, default=0.0)
    args = parser.parse_args()
    kinds = args.kinds.split(",")
    if set(kinds) - set(KINDS):
        parser.error(f"kinds are {', '.join(KINDS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Proxy(args.listen, args.target, args.seed, args.chance, kinds, args.rate) as proxy:
        print(proxy.server_address[1], flush=True)
        proxy.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
