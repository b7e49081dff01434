"""Hides secrets in all words that leave trtbuild: messages, documents, reports, logs and records.

A secret is the user part of a URL, a part of its query that is named as one, and the value of a variable of the
environment that is named as one. `secret_name` says which names these are.
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
SHORTEST = 6  # characters of a value that is looked for: a shorter one is in too many words

_NAMED = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|APIKEY|CONNECTION_STRING|SIGNATURE|(^|_)(KEY|KEYS|PASS|PWD|AUTH|PAT|SAS|COOKIE)(_|$)",
    re.IGNORECASE,
)
#: Named as secrets are, and said by shells and desktops: a folder, a socket.
_NONE = frozenset({"PWD", "OLDPWD", "SSH_AUTH_SOCK", "XAUTHORITY", "GPG_KEY"})
#: Ends of names that say which secret, or where it lies: AWS_ACCESS_KEY_ID, AZURE_FEDERATED_TOKEN_FILE.
_OPEN = ("_ID", "_FILE", "_PATH", "APPLICATION_CREDENTIALS")
# Of a URL: hf://org/name@revision has a slash before it, hf://name@revision no colon; an image's digest is no host.
_USER = re.compile(r"(?<![\w+.-])(?!hf://[^\s/@:]*@)([A-Za-z][\w+.-]*://)[^\s/'\"<>]+@(?!sha256:)")
_QUERY = re.compile(
    r"([?&;](?:[\w.-]*(?:tok|sig|secret|passw|pwd|key|credential|auth|sas)[\w.-]*)=)[^&;\s'\"<>]+",
    re.IGNORECASE,
)
# A variable that is set: what follows is its value, but for a path and a reference.
_SET = re.compile(r"\b([A-Z][A-Z0-9_]*)=(?![/~$*…])([^\s'\"]{6,})")


@lru_cache(maxsize=4096)
def secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret: HF_TOKEN, AWS_SECRET_ACCESS_KEY, TRTSTORE_SIGNING_KEY, …"""
    return name not in _NONE and not name.upper().endswith(_OPEN) and _NAMED.search(name) is not None


def secrets(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Each value that must not be seen, with the name of its variable; passwords in URLs of indexes, too."""
    found: dict[str, str] = {}
    for name, value in (os.environ if environ is None else environ).items():
        if secret_name(name):
            if len(value) >= SHORTEST and not _is_place(value):
                found[value] = name
        elif "://" in value and "@" in value:
            for each in value.split():
                for part in _in_url(each):
                    found[part] = name
    return found


def _is_place(value: str) -> bool:
    """A path may be told: what lies there is the secret."""
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
    return hiding(environ)(text)


def redact_urls(text: str) -> str:
    """As `redact`, and the query of each URL, which may hold a credential that looks like none."""
    return re.sub(r"(\w+://[^\s?'\"]*)\?[^\s'\"]*", r"\1?***", redact(text))


def hiding(environ: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """As `redact`, for many texts: the environment is looked through once."""
    # The longest first: one secret may be a part of another.
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


def _unset(found: re.Match[str]) -> str:
    return f"{found[1]}={HIDDEN}" if secret_name(found[1]) else found[0]


def carries(text: str) -> bool:
    """Whether a text holds a URL with a password, or with a query that is named as a secret."""
    return "://" in text and (_USER.search(text) is not None or _QUERY.search(text) is not None)


def clean(value: Any) -> Any:
    """The same JSON value, with each of its texts redacted."""
    hide = hiding()

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return hide(value)
        if isinstance(value, Mapping):
            return {walk(name): walk(each) for name, each in value.items()}
        return [walk(each) for each in value] if isinstance(value, list | tuple) else value

    return walk(value)


def scrub(path: Path) -> None:
    """Redact a text file in place, line by line, before it is kept or shared. Raises OSError."""
    hide = hiding()
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as read:
        lines = [(line, hide(line)) for line in read]
    if any(before != after for before, after in lines):
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as written:
            written.writelines(after for _, after in lines)


def scrubbed(stream: TextIO) -> TextIO:
    """A text stream in front of another: what is written through it is redacted."""
    return cast(TextIO, _Scrubbed(stream))


class _Scrubbed:
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
