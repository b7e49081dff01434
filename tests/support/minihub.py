"""A read server that speaks as much of the Hugging Face Hub's protocol as its real client asks for.

    with MiniHub() as hub:
        hub.add("org/name", {"config.json": b"{}", "model.safetensors": weights})
        hub.add("datasets/org/name", {"train.jsonl": lines})
        ... HF_ENDPOINT=hub.url ...

    ... hub.twist = lambda answer: replace(answer, headers={**answer.headers, "ETag": "../x"}) ...   # a Hub that lies

A repository has commits, and branches that point to them. Files of `lfs_from` bytes or more are served as
the Hub serves large files: their listing states the sha256. Each request is logged with the body's bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

_REVISION = re.compile(r"/api/(?:models/|(?=datasets/))((?:datasets/)?[^/]+/[^/]+)(?:/revision/(.+))?")
_RESOLVE = re.compile(r"(?P<cdn>/cdn)?/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass(frozen=True)
class Refusal:
    """An error as the Hub sends it: a status, and the code that its client tells errors by."""

    status: int
    code: str = ""
    message: str = ""


NO_REPOSITORY = Refusal(401, "RepoNotFound", "Repository not found")
NO_REVISION = Refusal(404, "RevisionNotFound", "Invalid rev id")
NO_ENTRY = Refusal(404, "EntryNotFound", "Entry not found")
GATED = Refusal(401, "GatedRepo", "Access to this model is restricted. You must be authenticated to access it.")
NOT_ON_THE_LIST = Refusal(403, "GatedRepo", "You are not in the authorized list.")
BAD_TOKEN = Refusal(401, "", "Invalid credentials in Authorization header")


@dataclass(frozen=True)
class Answer:
    """What is sent for a request: its headers, and the body `times` over."""

    method: str
    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    times: int = 1


@dataclass(frozen=True)
class Logged:
    """One request: what was asked, whether with a token, and the bytes of file content that were sent."""

    method: str
    path: str
    range: str | None
    token: bool
    sent: int


@dataclass
class Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    #: None: anyone reads. Else the tokens whose accounts accepted the licence.
    accepted: set[str] | None = None
    #: file -> how many more downloads of it come with one byte changed
    corrupt: dict[str, int] = field(default_factory=dict)


class MiniHub:
    """Serves on a free port of the loopback, from a thread, until it is left."""

    def __init__(self, lfs_from: int = 4096, tls: ssl.SSLContext | None = None) -> None:
        self.lfs_from = lfs_from
        self._scheme = "https" if tls else "http"
        self.repositories: dict[str, Repository] = {}
        self.tokens: set[str] = set()  # of accounts; another token is refused
        self.log: list[Logged] = []
        self.cdn = False  # large files come by a redirect to another host, as from the Hub
        self.down: Refusal | None = None  # the answer to everything, when it is set
        self.together: dict[str, threading.Barrier] = {}  # file -> what its download waits at, if anything
        self.twist: Callable[[Answer], Answer] = lambda answer: answer  # what is sent in place of an answer
        self.drip: Callable[[Answer], bool] = lambda _answer: False  # whether it comes a byte each 0.2 s
        self.gone = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> MiniHub:
        self._thread.start()
        return self

    def __exit__(self, *_failure: object) -> None:
        self.leave()

    def leave(self) -> None:
        """From now on nobody answers at this address."""
        self.gone.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def cdn_url(self) -> str:
        """The same server by another host name, where the token must not go."""
        return self.url.replace("127.0.0.1", "localhost")

    def add(self, repo: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Commit `files` as the whole of the repository, move the branch, and return the commit."""
        content = "".join(f"{name}:{hashlib.sha256(files[name]).hexdigest()}" for name in sorted(files))
        sha = hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()
        repository = self.repositories.setdefault(repo, Repository())
        repository.commits[sha] = dict(files)
        repository.branches[branch] = sha
        return sha

    def sent(self, ending: str) -> int:
        """Bytes of files with this ending that left the server."""
        return sum(one.sent for one in self.log if one.path.endswith(ending))

    def commit(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | Refusal:
        repository = self.repositories.get(repo)
        if repository is None:
            return NO_REPOSITORY
        sha = repository.branches.get(revision, revision)
        return (sha, repository.commits[sha]) if sha in repository.commits else NO_REVISION

    def gate(self, repo: str, token: str | None) -> Refusal | None:
        accepted = self.repositories[repo].accepted
        if accepted is None or token in accepted:
            return None
        return GATED if token is None else NOT_ON_THE_LIST

    def content(self, repo: str, name: str, data: bytes, *, download: bool) -> bytes:
        """The bytes that are sent, which are not those that are published while the file is corrupted."""
        corrupt = self.repositories[repo].corrupt
        if not download or corrupt.get(name, 0) <= 0:
            return data
        corrupt[name] -= 1
        return data[:-1] + bytes([data[-1] ^ 1])

    def facts(self, name: str, data: bytes) -> dict[str, Any]:
        """A file as the listing states it."""
        if len(data) < self.lfs_from:
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
            return {"rfilename": name, "size": len(data), "blobId": blob}
        sha256 = hashlib.sha256(data).hexdigest()
        pointer = hashlib.sha1(sha256.encode(), usedforsecurity=False).hexdigest()
        lfs = {"sha256": sha256, "size": len(data), "pointerSize": 134}
        return {"rfilename": name, "size": len(data), "blobId": pointer, "lfs": lfs}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: MiniHub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sent = 0

    @property
    def hub(self) -> MiniHub:
        return cast(_Server, self.server).hub

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the log is for tests to read."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.sent = 0
        try:
            self._route(unquote(url.path), parse_qs(url.query))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # a client that has read enough
        finally:
            wanted = self.headers.get("Range")
            self.hub.log.append(Logged(self.command, url.path, wanted, self.token is not None, self.sent))

    def _route(self, path: str, query: Mapping[str, list[str]]) -> None:
        if self.hub.down is not None:
            return self._refuse(self.hub.down)
        if self.token is not None and self.token not in self.hub.tokens:
            return self._refuse(BAD_TOKEN)
        if found := _REVISION.fullmatch(path):
            return self._model(found[1], found[2] or "main", blobs="blobs" in query)
        if found := _RESOLVE.fullmatch(path):
            return self._file(found[2], found[3], found[4], from_cdn=found["cdn"] is not None)
        return self._refuse(Refusal(404, "", "no such endpoint"))

    def _model(self, repo: str, revision: str, *, blobs: bool) -> None:
        commit = self.hub.commit(repo, revision)
        if isinstance(commit, Refusal):
            return self._refuse(commit)
        sha, files = commit
        listed = [self.hub.facts(name, files[name]) if blobs else {"rfilename": name} for name in sorted(files)]
        # Public even when gated, as on the Hub: the files are not.
        name = repo.removeprefix("datasets/")
        return self._json({"id": name, "modelId": name, "sha": sha, "private": False, "siblings": listed})

    def _file(self, repo: str, revision: str, name: str, *, from_cdn: bool) -> None:
        commit = self.hub.commit(repo, revision)
        if isinstance(commit, Refusal):
            return self._refuse(commit)
        refusal = self.hub.gate(repo, self.token)
        if refusal is not None and not from_cdn:  # its links are signed on the Hub
            return self._refuse(refusal)
        sha, files = commit
        if name not in files:
            return self._refuse(NO_ENTRY)
        data = files[name]
        facts = self.hub.facts(name, data)
        digest = facts["lfs"]["sha256"] if "lfs" in facts else facts["blobId"]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if "lfs" in facts:
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            if self.hub.cdn and not from_cdn:
                location = {"Location": f"{self.hub.cdn_url}/cdn{self.path}"}
                return self._answer(302, headers | location, b"")
        if self.command == "GET" and name in self.hub.together:
            self.hub.together[name].wait()
        status = 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        data = self.hub.content(repo, name, data, download=self.command == "GET")
        if asked:
            last = min(int(asked[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {asked[1]}-{last}/{len(data)}"
            status, data = 206, data[int(asked[1]) : last + 1]
        self._answer(status, headers, data)
        return None

    def _json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self._answer(status, {"Content-Type": "application/json", **(headers or {})}, body)
        self.sent = 0  # no file's

    def _refuse(self, refusal: Refusal) -> None:
        headers = {"X-Error-Message": refusal.message} if refusal.message else {}
        if refusal.code:
            headers["X-Error-Code"] = refusal.code
        self._json({"error": refusal.message}, refusal.status, headers)

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        headers = {**headers, "Content-Length": str(len(body))}
        answer = self.hub.twist(Answer(self.command, self.path, status, headers, body))
        if self.hub.drip(answer):
            self.close_connection = True
            return self._drip(answer)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            for _ in range(answer.times):
                self.wfile.write(answer.body)
                self.sent += len(answer.body)
        return None

    def _drip(self, answer: Answer) -> None:
        lines = [
            f"HTTP/1.1 {answer.status} OK",
            *(f"{name}: {value}" for name, value in answer.headers.items()),
        ]
        for byte in "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body:
            if self.hub.gone.wait(0.2):
                return
            self.wfile.write(bytes([byte]))
