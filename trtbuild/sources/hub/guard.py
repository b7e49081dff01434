"""What an answer of the Hub may say and how long it may be, checked before the Hub's client sees it.

The client names a file of its cache by the ETag that the server sends, and a folder by its commit: here they must be
what the commit's listing published. Its token goes to the Hub alone.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import default_client_factory

from trtbuild.sources.base import is_sha256
from trtbuild.sources.hub.commit import is_git_id
from trtbuild.sources.refusals import plain

#: httpx in the client's 1.x, httpx2 in its 2.x.
HTTP: Any = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
SPARE = 1 << 16  # bytes that an answer may have above what was published: chunks end where they end
_FEW = 1 << 20  # bytes of an answer that is read for its words: an error, a redirect
_PORTS = {"http": 80, "https": 443}
_HUBS = ("huggingface.co", "hub-ci.huggingface.co")
_REDIRECTS = (301, 302, 303, 307, 308)
_SHOWN = 80  # characters of a stranger's text in a message


class Unsound(ValueError):
    """An answer that no Hub gives; its text says what is wrong with it."""


class GivenUp(OSError):
    """The request was given up: nothing waits for its answer."""


@dataclass(frozen=True)
class ExpectedFile:
    """What the listing says of a file: its commit, the digest that is its ETag (None: none is published), its bytes."""

    commit: str
    etag: str | None
    size: int


class Guard:
    """One step over the network: what it may bring, and how much came so far.

    `most` is the number of bytes that one answer may have.
    """

    def __init__(self, most: int, expected: ExpectedFile | None = None) -> None:
        self.most, self.expected = most, expected
        self.moved = 0  # bytes
        self.over = False
        self.xet = False  # the Hub's own storage sends the bytes, and tells of them now and then

    def moves(self, count: int) -> None:
        """Count bytes that came. Raises GivenUp if nothing waits for them any more."""
        if self.over:
            raise GivenUp("nobody waits for this answer any more")
        self.moved += max(0, count)

    def check(self, response: Any) -> None:
        """Raises Unsound; what the client reads of `response` afterwards is what was published."""
        expected, headers = self.expected, response.headers
        if response.status_code in _REDIRECTS and "Location" not in headers:
            raise Unsound(f"it sends its readers on ({response.status_code}) without saying where")
        if expected is None:
            return
        commit = headers.get("X-Repo-Commit")
        if commit is not None and commit != expected.commit:
            raise Unsound(f"it answers for the commit {shown(commit)}, and not for {expected.commit}")
        if response.request.method == "HEAD":
            if response.status_code < 400:
                _check_tag(headers, expected)
                _check_size(response, expected)
                self.xet = _check_xet(response)
        else:
            check_encoding(response)

    def limit(self, response: Any) -> int:
        return self.most if response.status_code < 300 else min(self.most, _FEW)


GUARD: ContextVar[Guard | None] = ContextVar("GUARD", default=None)


def shown(text: str) -> str:
    """A stranger's text, for a message."""
    return plain(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def check_encoding(response: Any) -> None:
    """Raises Unsound for a compressed answer: a few bytes may unpack to gigabytes, and none was requested."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() not in ("", "identity"):
        raise Unsound(f"it packs a file (Content-Encoding: {shown(encoding)}) that was asked for as it is")


def _check_tag(headers: Any, expected: ExpectedFile) -> None:
    sent = headers.get("X-Linked-Etag") or headers.get("ETag")
    if not sent:
        return
    tag = sent.removeprefix("W/").strip('"')
    if expected.etag is None and (is_sha256(tag) or is_git_id(tag)):
        return
    if tag != expected.etag:
        published = f"{expected.etag} is published" if expected.etag else "a digest was expected"
        raise Unsound(f"the ETag of a file is {shown(tag)}, and {published}")
    headers["X-Linked-Etag"] = f'"{tag}"'  # in one spelling, whatever a client makes of others


def _check_size(response: Any, expected: ExpectedFile) -> None:
    size = response.headers.get("X-Linked-Size")
    if size is None and not response.is_redirect:
        size = response.headers.get("Content-Length")
    if size is not None and size != str(expected.size):
        raise Unsound(f"a file has {shown(size)} bytes, and {expected.size} are published")


def _check_xet(response: Any) -> bool:
    """Whether the file comes from the Hub's own storage; what leads to another's is taken out of the answer."""
    named = response.headers.get("X-Xet-Hash")
    if named is None:
        return False
    route = response.links.get("xet-auth", {}).get("url") or response.headers.get("X-Xet-Refresh-Route", "")
    if is_sha256(named) and _trusted(route):  # the client sends the token there
        return True
    del response.headers["X-Xet-Hash"]
    return False


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)


def _trusted(url: str) -> bool:
    """Whether the token may go there: to the endpoint itself, and to the Hub."""
    try:
        origin = _origin(url)
    except ValueError:
        return False
    return origin == _origin(constants.ENDPOINT) or origin in [("https", host, 443) for host in _HUBS]


def _on_request(request: Any) -> None:
    url = str(request.url)
    if constants.ENDPOINT.startswith("https:") and not url.startswith("https:"):
        raise Unsound(f"it leads from https to {shown(url.partition('?')[0])}, which anybody on the way can change")
    if not _trusted(url):
        request.headers.pop("Authorization", None)


def _on_response(response: Any) -> None:
    guard = GUARD.get()
    if guard is not None:
        guard.check(response)
        response.stream = _Stream(response.stream, guard, guard.limit(response))


class _Body:
    """The bytes of an answer as they come over the wire, counted."""

    def __init__(self, stream: Any, guard: Guard, most: int) -> None:
        self._stream, self._guard, self._most = stream, guard, most

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._stream:
            size += len(piece)
            if size > self._most:
                raise Unsound(f"an answer goes on behind byte {self._most}")
            self._guard.moves(len(piece))
            yield piece

    def close(self) -> None:
        self._stream.close()


_Stream: Any = type("_Stream", (_Body, HTTP.SyncByteStream), {})


@functools.cache
def install() -> None:
    """Have every request of the client's, and every answer to it, looked at here."""

    def factory() -> Any:
        client = default_client_factory()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], _on_request],
            "response": [*hooks["response"], _on_response],
        }
        return client

    set_client_factory(factory)
