"""Keys and digests as text: 64 lower-case hexadecimal digits, with or without "sha256:" before them."""

from __future__ import annotations

import hashlib
import re

from trtstore.errors import Invalid, Malformed

ALGORITHM = "sha256"

_HEX = re.compile(r"[0-9a-f]{64}")


def is_hex(text: str) -> bool:
    """Whether `text` is 64 lower-case hexadecimal digits: a key, or a digest without its algorithm.

    >>> is_hex("ab" * 32), is_hex("ab")
    (True, False)
    """
    return _HEX.fullmatch(text) is not None


def checked_key(key: str) -> str:
    """`key` if it is one. Raises Invalid."""
    if not is_hex(key):
        raise Invalid(f"{key!r} is no key: a key is 64 lower-case hexadecimal digits")
    return key


def hex_of(digest: str) -> str:
    """The digits of "sha256:<64 hex>". Raises Malformed."""
    algorithm, _, digits = digest.partition(":")
    if algorithm != ALGORITHM or not is_hex(digits):
        raise Malformed(f"{digest[:100]!r} is no digest: a digest is sha256: and 64 hexadecimal digits")
    return digits


def digest_of(digits: str) -> str:
    """ "sha256:<digits>"."""
    return f"{ALGORITHM}:{digits}"


def hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
