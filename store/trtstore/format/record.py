"""What a key leads to: an in-toto statement about one artifact, in a DSSE envelope.

    envelope   {"payload":"<base64>","payloadType":"application/vnd.in-toto+json","signatures":[]}
    payload    {"_type":"https://in-toto.io/Statement/v1","subject":[{"name":<key>,…}],"predicateType":…,"predicate":…}

https://github.com/secure-systems-lab/dsse/blob/master/envelope.md
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trtstore.errors import Malformed
from trtstore.format import canonical_json, envelope
from trtstore.format.canonical_json import Json
from trtstore.format.digest import ALGORITHM, digest_of, hex_of, is_hex
from trtstore.format.envelope import MAX_SIGNATURES, PAYLOAD_TYPE, STATEMENT, Envelope, text
from trtstore.format.manifest import MAX_ENTRIES, MAX_SIZE

__all__ = ["MAX_SIGNATURES", "PAYLOAD_TYPE", "STATEMENT", "Attachment", "Record", "encode", "parse"]

MAX_BYTES = 4 << 20  # of the envelope
MAX_LABELS = 64
MAX_ATTACHMENTS = 64
MAX_NAME = 128  # characters of a label's or an attachment's name


@dataclass(frozen=True)
class Attachment:
    """A file that is kept with an artifact but is not part of it, such as a log: "sha256:<64 hex>", bytes."""

    digest: str
    size: int


@dataclass(frozen=True)
class Record:
    """What the store knows of a key. Treat the mappings as read-only.

    `manifest` is the artifact's digest, "sha256:<64 hex>"; `bytes` and `files` are its totals. `labels` are for
    people and filters. `predicate` says how the artifact was made, in the terms of `predicate_type` (a URI).
    """

    key: str
    manifest: str
    bytes: int
    files: int
    labels: Mapping[str, str]
    attachments: Mapping[str, Attachment]
    predicate_type: str
    predicate: Mapping[str, Any]


def encode(record: Record) -> bytes:
    """The record's envelope, unsigned. Raises Malformed where it breaks a rule."""
    subject = {
        "name": record.key,
        "digest": {ALGORITHM: hex_of(record.manifest)},
        "annotations": {
            "bytes": record.bytes,
            "files": record.files,
            "labels": dict(record.labels),
            "attachments": {
                name: {"digest": file.digest, "size": file.size} for name, file in record.attachments.items()
            },
        },
    }
    statement = {
        "_type": STATEMENT,
        "subject": [subject],
        "predicateType": record.predicate_type,
        "predicate": record.predicate,
    }
    try:
        data = Envelope(canonical_json.canonical(statement), ()).encode()
    except ValueError as error:
        raise Malformed(f"the record cannot be written as JSON: {error}") from None
    parse(data, record.key)
    return data


def parse(data: bytes, key: str) -> Record:
    """The record in an envelope, which must be that of `key`. Raises Malformed.

    Signatures are checked for their form only: whether one is wanted, and trusted, is the caller's policy.
    """
    statement = envelope.statement(envelope.parse(data, MAX_BYTES, "the record"), "the record")
    subject = canonical_json.fields(
        statement["subject"][0], "the record's subject", {"name": str, "digest": dict, "annotations": dict}
    )
    if subject["name"] != key or not is_hex(key):
        raise Malformed(f"the record is of the key {subject['name'][:100]!r}")
    digest = canonical_json.fields(subject["digest"], "the subject's digest", {ALGORITHM: str})[ALGORITHM]
    totals = canonical_json.fields(
        subject["annotations"],
        "the subject's annotations",
        {"bytes": int, "files": int, "labels": dict, "attachments": dict},
    )
    if not (0 <= totals["bytes"] <= MAX_SIZE and 1 <= totals["files"] <= MAX_ENTRIES):
        raise Malformed("the record's totals are out of bounds")
    return Record(
        key=key,
        manifest=digest_of(hex_of(digest_of(digest))),
        bytes=totals["bytes"],
        files=totals["files"],
        labels=_labels(totals["labels"]),
        attachments=_attachments(totals["attachments"]),
        predicate_type=text(statement["predicateType"], "the predicate's type"),
        predicate=statement["predicate"],
    )


def _labels(labels: dict[str, Json]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        raise Malformed(f"the record has more than {MAX_LABELS} labels")
    for name, value in labels.items():
        text(name, "a label's name", MAX_NAME)
        if type(value) is not str:
            raise Malformed(f"the label {name!r} must be text")
        if value:
            text(value, f"the label {name!r}")
    return labels


def _attachments(items: dict[str, Json]) -> dict[str, Attachment]:
    if len(items) > MAX_ATTACHMENTS:
        raise Malformed(f"the record has more than {MAX_ATTACHMENTS} attachments")
    attachments = {}
    for name, value in items.items():
        text(name, "an attachment's name", MAX_NAME)
        file = canonical_json.fields(value, f"the attachment {name!r}", {"digest": str, "size": int})
        hex_of(file["digest"])
        if not 0 <= file["size"] <= MAX_SIZE:
            raise Malformed(f"the attachment {name!r} has a size out of bounds")
        attachments[name] = Attachment(file["digest"], file["size"])
    return attachments
