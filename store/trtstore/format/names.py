"""Names of records and blobs below the root of a store, a team store or a bundle: the same in all three."""

from __future__ import annotations


def record_name(key: str) -> str:
    """The name of the record of `key`."""
    return f"records/{key[:2]}/{key}"


def blob_name(digits: str) -> str:
    """The name of the blob `digits`."""
    return f"blobs/sha256/{digits[:2]}/{digits}"
