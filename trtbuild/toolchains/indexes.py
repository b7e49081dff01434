"""Translates a user's settings of uv to pip's, so that package indexes are configured only once.

Order: variables of uv, variables of pip, uv.toml, pip.conf. Locks name wheels by hash, so that no order of indexes
can change what is installed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from trtbuild import untrusted
from trtbuild.errors import InputError

#: Variables of uv and of pip that name places. https://docs.astral.sh/uv/reference/environment/
_PLACES = {
    "UV_DEFAULT_INDEX": "PIP_INDEX_URL",
    "UV_INDEX_URL": "PIP_INDEX_URL",
    "UV_INDEX": "PIP_EXTRA_INDEX_URL",
    "UV_EXTRA_INDEX_URL": "PIP_EXTRA_INDEX_URL",
    "UV_FIND_LINKS": "PIP_FIND_LINKS",
    "UV_NO_INDEX": "PIP_NO_INDEX",
    "UV_OFFLINE": "PIP_NO_INDEX",
}
#: And those that say how a place is reached.
_MEANS = {
    "UV_INSECURE_HOST": "PIP_TRUSTED_HOST",
    "UV_HTTP_TIMEOUT": "PIP_DEFAULT_TIMEOUT",
    "SSL_CERT_FILE": "PIP_CERT",
}
#: Keys of a uv.toml, at its top or below [pip]. https://docs.astral.sh/uv/reference/settings/
_KEYS = {
    "index-url": "PIP_INDEX_URL",
    "extra-index-url": "PIP_EXTRA_INDEX_URL",
    "find-links": "PIP_FIND_LINKS",
    "no-index": "PIP_NO_INDEX",
    "offline": "PIP_NO_INDEX",
    "allow-insecure-host": "PIP_TRUSTED_HOST",
}
_NAMED = re.compile(r"([\w.-]+)=(?=\S)")


def for_pip(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with uv's settings of where packages come from as variables of pip.

    Raises InputError for a uv.toml that cannot be read.
    """
    by_uv: dict[str, list[str]] = {}
    for name, pips in _PLACES.items():
        for place in re.split(r"[\s,]+", environ.get(name, "")):
            if place:
                by_uv.setdefault(pips, []).append(_with_password(place, environ))
    own = dict(environ)
    if by_uv:
        own = {name: value for name, value in environ.items() if name not in _PLACES.values()}
    elif not any(environ.get(name) for name in _PLACES.values()):
        for pips, place in _of_files(environ):
            by_uv.setdefault(pips, []).append(_with_password(place, environ))
    for name, pips in _MEANS.items():
        if (value := environ.get(name)) and not environ.get(pips):
            own[pips] = value
    return own | {name: " ".join(places) for name, places in by_uv.items()}


def _of_files(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The settings of the user's uv.toml, or else of the machine's: pip's variable and its value."""
    config = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or Path.home()) / ".config"
    files = [Path(config) / "uv" / "uv.toml", Path("/etc/uv/uv.toml")]
    if environ.get("UV_NO_CONFIG"):
        files = []
    if named := environ.get("UV_CONFIG_FILE"):
        files = [Path(named)]
    for file in files:
        if file.is_file():
            try:
                yield from _of_file(tomllib.loads(untrusted.read_bytes(file).decode()))
            except (ValueError, RecursionError, OSError) as error:
                raise InputError(f"{file} cannot be read: {error}", hint="mend that setting of uv") from None
            return


def _of_file(table: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    indexes = table.get("index")
    for index in indexes if isinstance(indexes, list) else []:
        if isinstance(index, dict) and isinstance(url := index.get("url"), str) and not index.get("explicit"):
            name = index.get("name")
            pips = "PIP_INDEX_URL" if index.get("default") else "PIP_EXTRA_INDEX_URL"
            yield pips, f"{name}={url}" if isinstance(name, str) else url
    inner = table.get("pip")
    for key, pips in _KEYS.items():
        value = table.get(key, inner.get(key) if isinstance(inner, dict) else None)
        if value is True:
            yield pips, "1"
        for place in value if isinstance(value, list) else [value]:
            if isinstance(place, str):
                yield pips, place


def _with_password(place: str, environ: Mapping[str, str]) -> str:
    """`place`, or of `name=URL` the URL, with the user and the password that uv's variables have for that name."""
    named = _NAMED.match(place)
    if named is None or "://" in named[1]:
        return place
    url = urlsplit(place[named.end() :])
    prefix = "UV_INDEX_" + re.sub(r"\W", "_", named[1]).upper()
    user, password = environ.get(f"{prefix}_USERNAME"), environ.get(f"{prefix}_PASSWORD")
    if "@" in url.netloc or not (user or password):
        return urlunsplit(url)
    login = quote(user or "", safe="") + (f":{quote(password, safe='')}" if password else "")
    return urlunsplit(url._replace(netloc=f"{login}@{url.netloc}"))
