"""What an asker knows of an artifact before it has it: stated with the question, and held against each answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trtstore.format.record import Record


@dataclass(frozen=True)
class Expected:
    """One question. Nothing has a default: the caller says what it knows.

    `labels` are those that the asker would give the artifact: a trusted key must be trusted for these, too. None says
    that the asker does not know whose the key is; then stores that judge signatures are not asked.
    `manifest` is the artifact's digest, where the asker knows each file beforehand, else None: a record with another
    manifest is then a miss, wherever it comes from.

    >>> Expected(key, {"model": "llama"}, record.manifest).trouble(record) is None
    True
    """

    key: str
    labels: Mapping[str, str] | None
    manifest: str | None

    def trouble(self, record: Record) -> str | None:
        """Why `record` is not what is expected, in words; None where it is, or where nothing was known beforehand."""
        return trouble(record, self.manifest)


def trouble(record: Record, manifest: str | None) -> str | None:
    """As `Expected.trouble`, of an artifact's digest."""
    if manifest is None or record.manifest == manifest:
        return None
    return f"the record of {record.key[:12]} lists other files than those that its key names"
