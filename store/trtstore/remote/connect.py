"""A team store's URL to the place that it names."""

from __future__ import annotations

import importlib
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from trtstore.deadlines import PATIENCE
from trtstore.errors import Invalid
from trtstore.remote.objects import Objects
from trtstore.remote.shared_folder import SharedFolder

SCHEMES = ("s3", "gs", "az", "file")


def connect(url: str, patience: float = PATIENCE) -> Objects:
    """The place that `url` names: s3://bucket/prefix, gs://…, az://… or file:///folder. Makes no request yet.

    `patience` is how many seconds each question may take; bytes may take longer, at a rate. Raises Invalid
    for another URL, and where the client for buckets is not installed.

    >>> connect(url).stat("records") is None
    True
    """
    parts = checked(url)
    if parts.scheme == "file":
        return SharedFolder(Path(unquote(parts.path)), patience)
    try:  # the client takes 16 MB and a moment, so it is loaded only for a bucket
        bucket = importlib.import_module("trtstore.remote.bucket")
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
        raise Invalid(f"{shown!r} is no team store: write s3://bucket/prefix, gs://…, az://… or file:///folder")
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
