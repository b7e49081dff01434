"""Objects by name, in a bucket or a shared folder: all that a team store asks of the place where it is kept."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from trtstore.deadlines import PATIENCE
from trtstore.errors import Invalid
from trtstore.folder import SharedFolder
from trtstore.listed import Listed, Stat
from trtstore.protocols import Readable

SCHEMES = ("s3", "gs", "az", "file")


class Objects(Protocol):
    """Named objects, each of which is there whole or not at all. `str` of it is its URL, without secrets.

    Names are `v1/…` with `/` between parts. Every method raises Unreachable where the place cannot be asked or does
    not answer in time, NotReadable or NotWritable where it refuses, and Corrupt where what is there is larger than it
    may be.
    """

    def read(self, name: str, limit: int) -> bytes | None:
        """The bytes of an object, at most `limit`; None where there is none."""

    def create(self, name: str, data: bytes) -> bool:
        """Put a new object there; False, and nothing is changed, where the name is taken.

        After it, and after `replace`, what is stored is what was sent, or NotWritable was raised.
        """

    def replace(self, name: str, data: bytes) -> None:
        """Put an object there, whatever had the name."""

    def size(self, name: str) -> int | None:
        """The bytes of an object; None where there is none."""

    def stat(self, name: str) -> Stat | None:
        """What the place says of an object; None where there is none."""

    def listed(self, prefix: str) -> Iterator[Listed]:
        """The objects whose names begin with `prefix`, which ends with `/`; in no order."""

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""

    def open(self, name: str, size: int) -> AbstractContextManager[Readable]:
        """The first `size` bytes of an object, read ahead in parts; fewer come only where it has fewer."""

    def upload(self, name: str, chunks: Iterator[bytes | memoryview], size: int) -> None:
        """Put an object of `size` bytes there, in parts and in bounded memory. What `chunks` raises leaves nothing.

        Unless the place `compares`, the caller has to look what was stored.
        """

    def compares(self) -> bool:
        """Whether the place refuses bytes that changed on their way to it. The first time it is tried, by writing."""


def connect(url: str, patience: float = PATIENCE) -> Objects:
    """The place that `url` names: s3://bucket/prefix, gs://…, az://… or file:///folder. Asks nothing of it yet.

    `patience` is how many seconds each question may take; bytes may take longer, at a rate. Raises Invalid
    for another URL, and where the client for buckets is not installed.
    """
    parts = checked(url)
    if parts.scheme == "file":
        return SharedFolder(Path(unquote(parts.path)), patience)
    try:  # the client takes 16 MB and a moment: only who has a bucket pays for it
        bucket = importlib.import_module("trtstore.bucket")
    except ModuleNotFoundError as error:
        raise Invalid(
            f"{url} needs the package {error.name}, which is not installed", "pip install 'trtbuild[team]'"
        ) from None
    made: Objects = bucket.Bucket(url, patience)
    return made


def checked(url: str) -> SplitResult:
    """The parts of a URL that `connect` takes. Raises Invalid for another."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        shown = "…" if "@" in url or "?" in url else url  # which may hold a secret
        raise Invalid(
            f"{shown!r} is no team store: write s3://bucket/prefix, gs://…, az://… or file:///folder"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        # A secret in a URL would end in logs and reports; and what is not understood is not passed over.
        raise Invalid(
            f"a team store's URL is {parts.scheme}://… and a path, with no user, query or fragment",
            "credentials come from the environment: AWS_…, GOOGLE_… or AZURE_…",
        )
    if parts.scheme == "file":
        if not url.startswith("file:///") or not parts.path.strip("/"):
            raise Invalid(f"{url!r} names no folder: write file:///folder, with three slashes")
    elif not parts.netloc:
        raise Invalid(f"{url!r} names no bucket")
    return parts
