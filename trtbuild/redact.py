"""Hides secrets in all text that leaves trtbuild: messages, documents, reports, logs and records.

A secret is the user part of a URL, a query parameter with a secret's name, or the value of an environment variable
with a secret's name. `secret_name` says which names those are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO, cast
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "***"
SHORTEST = 6  # characters of a secret: a shorter value occurs in too many words

_NAMED = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|APIKEY|CONNECTION_STRING|SIGNATURE|(^|_)(KEY|KEYS|PASS|PWD|AUTH|PAT|SAS|COOKIE)(_|$)",
    re.IGNORECASE,
)
#: Variables with such names that hold no secret: shells and desktops set them to a folder or a socket.
_NONE = frozenset({"PWD", "OLDPWD", "SSH_AUTH_SOCK", "XAUTHORITY", "GPG_KEY"})
#: Endings of names that say which secret it is or where it lies: AWS_ACCESS_KEY_ID, AZURE_FEDERATED_TOKEN_FILE.
_OPEN = ("_ID", "_FILE", "_PATH", "APPLICATION_CREDENTIALS")
# Of a URL: hf://org/name@revision has a slash before it, hf://name@revision no colon; an image's digest is no host.
_USER = re.compile(r"(?<![\w+.-])(?!hf://[^\s/@:]*@)([A-Za-z][\w+.-]*://)[^\s/'\"<>]+@(?!sha256:)")
_QUERY = re.compile(
    r"([?&;](?:[\w.-]*(?:tok|sig|secret|passw|pwd|key|credential|auth|sas)[\w.-]*)=)[^&;\s'\"<>]+",
    re.IGNORECASE,
)
# NAME=value, unless the value is a path or a reference.
_SET = re.compile(r"\b([A-Z][A-Z0-9_]*)=(?![/~$*…])([^\s'\"]{6,})")


@lru_cache(maxsize=4096)
def secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret: HF_TOKEN, AWS_SECRET_ACCESS_KEY, TRTSTORE_SIGNING_KEY, …"""
    return name not in _NONE and not name.upper().endswith(_OPEN) and _NAMED.search(name) is not None


def secrets(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Secret value -> the name of its environment variable. Passwords in the URLs of package indexes are included."""
    hidden: dict[str, str] = {}
    for name, value in (os.environ if environ is None else environ).items():
        if secret_name(name):
            if len(value) >= SHORTEST and not _is_path(value):
                hidden[value] = name
        elif "://" in value and "@" in value:
            for url in value.split():
                for password in _in_url(url):
                    hidden[password] = name
    return hidden


def _is_path(value: str) -> bool:
    """Whether it is an existing path, which may be shown: the secret is in the file."""
    try:
        return value.startswith(("/", "~", "./")) and Path(value).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def _in_url(url: str) -> Iterable[str]:
    try:
        parts = urlsplit(url)
        password = parts.password or (parts.username if parts.password is None else None)
    except ValueError:
        return ()
    if password is None or len(password) < SHORTEST:
        return ()
    return {password, unquote(password)}


def redact(text: str, environ: Mapping[str, str] | None = None) -> str:
    """`text` without secrets."""
    return redactor(environ)(text)


def redact_urls(text: str) -> str:
    """As `redact`, and without the query of each URL, which may hold a credential that looks like none."""
    return re.sub(r"(\w+://[^\s?'\"]*)\?[^\s'\"]*", r"\1?***", redact(text))


def redactor(environ: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """A function like `redact` for many texts, which reads the environment once."""
    # The longest first: one secret may be part of another.
    values = sorted(secrets(environ), key=len, reverse=True)
    forms = [form for value in values for form in (value, quote(value, safe=""), json.dumps(value)[1:-1])]

    def hide(text: str) -> str:
        if "://" in text:
            text = _USER.sub(rf"\1{HIDDEN}@", text)
        if "=" in text and ("?" in text or "&" in text or ";" in text):
            text = _QUERY.sub(rf"\1{HIDDEN}", text)
        if "=" in text:
            text = _SET.sub(_unset, text)
        for form in forms:
            text = text.replace(form, HIDDEN)
        return text

    return hide


def _unset(match: re.Match[str]) -> str:
    return f"{match[1]}={HIDDEN}" if secret_name(match[1]) else match[0]


def has_secrets(text: str) -> bool:
    """Whether a text holds a URL with a password, or a query parameter with a secret's name."""
    return "://" in text and (_USER.search(text) is not None or _QUERY.search(text) is not None)


def redact_json(value: Any) -> Any:
    """The same JSON value with every string redacted."""
    hide = redactor()

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return hide(value)
        if isinstance(value, Mapping):
            return {walk(name): walk(item) for name, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list | tuple) else value

    return walk(value)


def redact_file(path: Path) -> None:
    """Redact a text file in place, line by line, before it is kept or shared. Raises OSError."""
    hide = redactor()
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as read:
        lines = [(line, hide(line)) for line in read]
    if any(before != after for before, after in lines):
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as written:
            written.writelines(after for _, after in lines)


def redacting(stream: TextIO) -> TextIO:
    """A text stream that redacts what is written to it, and passes it on to `stream`."""
    return cast(TextIO, _RedactingStream(stream))


class _RedactingStream:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As of a stream."""
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """As of a stream."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
