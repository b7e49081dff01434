"""A toolchain's lock: every package of an environment by version and sha256, read from a pip requirements file.

The digest is of the packages alone: name, version, marker and hashes, in order of name. Comments, the order of lines
and the indexes do not count, for they do not say what is installed. Three comments say something to trtbuild:
`# title:` is the toolchain's name, `# chosen:` the packages that the bytes of a result depend on (all, where it is
missing), and each `# download:` what one Python on one machine has to fetch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName
from packaging.version import InvalidVersion, Version

from trtbuild import untrusted
from trtbuild.errors import InputError

SCHEMA = 1  # of the digest's pre-image

MOST_BYTES = 16 << 20  # of a lock: the largest that ships has 57 kB
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*([^\s;*]+)\s*(?:;\s*(.*?))?\s*((?:--hash=\S+\s*)*)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_SAID = re.compile(r"#\s*(title|chosen|download):\s*(.*)")
_TITLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,99}")
_DOWNLOAD = re.compile(r"(\S+) (\S+), (\d+) wheels?, (\d+) bytes")
_INDEX = re.compile(r"(--(?:extra-)?index-url|--find-links)[ =](\S+)")
_WRITTEN = "as `trtbuild toolchain lock` writes it: name==version, a marker, and --hash=sha256:… for each wheel"


@dataclass(frozen=True)
class PackagePin:
    """One package: its name as PEP 503 normalises it, version, environment marker and the sha256 of its wheels."""

    name: str
    version: str
    marker: str | None
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class Download:
    """What one Python (`cp311`) on one machine (`x86_64`) fetches: how many wheels, and their bytes."""

    wheels: int
    bytes: int


@dataclass(frozen=True)
class Lock:
    """A toolchain. `chosen` are the packages that a result depends on; `indexes` are options for the installer."""

    title: str
    pins: tuple[PackagePin, ...]
    chosen: tuple[str, ...]
    indexes: tuple[str, ...] = ()
    downloads: Mapping[tuple[str, str], Download] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits: what a step's key holds."""
        pins = [[pin.name, pin.version, pin.marker, list(pin.hashes)] for pin in self.pins]
        text = json.dumps({"schema": SCHEMA, "pins": pins}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    @cached_property
    def packages(self) -> dict[str, str]:
        """package -> version; several, where markers choose, are joined by `|`."""
        by_name: dict[str, list[str]] = {}
        for pin in self.pins:
            by_name.setdefault(pin.name, []).append(pin.version)
        return {name: "|".join(dict.fromkeys(versions)) for name, versions in by_name.items()}

    @property
    def versions(self) -> dict[str, str]:
        """As `packages`, of the chosen ones alone."""
        return {name: self.packages[name] for name in self.chosen}

    def wanted(self, markers: Mapping[str, str]) -> dict[str, PackagePin]:
        """The pins that count where the environment markers are these, by name."""
        return {pin.name: pin for pin in self.pins if pin.marker is None or Marker(pin.marker).evaluate(dict(markers))}

    @cached_property
    def text(self) -> str:
        """A requirements file for pip and uv that parses to this lock again."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"# title: {self.title}"
        yield f"# chosen: {' '.join(self.chosen)}"
        for (python, machine), download in sorted(self.downloads.items()):
            yield f"# download: {python} {machine}, {download.wheels} wheels, {download.bytes} bytes"
        yield from self.indexes
        for pin in self.pins:
            marker = f" ; {pin.marker}" if pin.marker else ""
            yield " \\\n    ".join(
                [f"{pin.name}=={pin.version}{marker}", *(f"--hash=sha256:{digits}" for digits in pin.hashes)]
            )


def normal(name: str) -> str:
    """A package's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(path: Path, option: str) -> Lock:
    """The lock in the file `path`. Raises InputError, about `option`, where there is none."""
    return parse(read_text(path, option), option, path.stem, str(path))


def read_text(path: Path, option: str) -> str:
    """The text of a lock, or of pins, in the regular file `path`. Raises InputError about `option`."""
    try:
        return untrusted.read_bytes(path, MOST_BYTES).decode("utf-8")
    except untrusted.MalformedJson as wrong:
        reason: str | None = str(wrong)
    except UnicodeError:
        reason = "it is no text"
    except OSError as error:
        reason = error.strerror
    raise InputError(f"{path} cannot be read: {reason}", option=option)


def parse(text: str, option: str, title: str, place: str) -> Lock:
    """The lock that `text` says; `title` is its name where it says none, and `place` where it stands, for errors.

    Raises InputError.
    """
    pins: list[PackagePin] = []
    chosen: tuple[str, ...] | None = None
    indexes: list[str] = []
    downloads: dict[tuple[str, str], Download] = {}
    for number, line in _logical(text):
        if said := _SAID.fullmatch(line):
            if said[1] == "title":
                title = _title(said[2].strip(), option, f"{place}, line {number}")
            elif said[1] == "chosen":
                chosen = tuple(sorted({normal(name) for name in said[2].split()}))
            elif match := _DOWNLOAD.fullmatch(said[2].strip()):
                downloads[match[1], match[2]] = Download(int(match[3]), int(match[4]))
            continue
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if not line:
            continue
        if index := _INDEX.fullmatch(line):
            indexes.append(_without_secret(index[1], index[2], option, f"{place}, line {number}"))
            continue
        pins.append(_pin(line, option, f"{place}, line {number}"))
    if not pins:
        raise InputError(f"{place} locks no package", option=option, hint=f"a lock is {_WRITTEN}")
    pins.sort(key=lambda pin: (pin.name, pin.version, pin.marker or ""))
    names = {pin.name for pin in pins}
    lacking = [name for name in chosen or () if name not in names]
    if lacking:
        raise InputError(f"{place} chooses {lacking[0]} and does not lock it", option=option)
    return Lock(title, tuple(pins), chosen or tuple(sorted(names)), tuple(indexes), downloads)


def _title(text: str, option: str, place: str) -> str:
    """`text` where it is a plain name: it is shown, and files are called by it."""
    if _TITLE.fullmatch(text) is None:
        raise InputError(f"{place}: {text[:80]!a} is no title: letters, digits and ._+- only", option=option)
    return text


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """(number of its first line, line) with continued lines joined."""
    parts: list[str] = []
    first = 1
    for number, line in enumerate(text.splitlines(), 1):
        if not parts:
            first = number
        more = line.endswith("\\") and not line.lstrip().startswith("#")
        parts.append(line[:-1].strip() if more else line.strip())
        if not more:
            yield first, " ".join(parts)
            parts = []
    if parts:
        yield first, " ".join(parts)


def _pin(line: str, option: str, place: str) -> PackagePin:
    match = _PIN.fullmatch(line)
    hashes = _HASH.findall(match[4]) if match else []
    if match is None or len(hashes) != len(match[4].split()) or not hashes:
        shown = line.partition(" --hash")[0][:80]
        raise InputError(f"{place}: {shown!r} is not locked", option=option, hint=f"a lock is {_WRITTEN}")
    marker = " ".join(match[3].split()) if match[3] else None
    try:
        Version(match[2])
        if marker is not None:
            Marker(marker).evaluate()
            if re.search(r"\s-", marker):  # pip takes a word that begins so for an option, even within quotes
                raise InvalidMarker(f"the marker {marker[:80]!a} holds an option of pip's")
    except (InvalidVersion, InvalidMarker, UndefinedEnvironmentName) as error:
        raise InputError(f"{place}: {str(error).splitlines()[0]}", option=option) from None
    return PackagePin(normal(match[1]), match[2], marker, tuple(sorted(set(hashes))))


def _without_secret(flag: str, url: str, option: str, place: str) -> str:
    if re.match(r"[a-z+]+://[^/]*@", url):
        raise InputError(
            f"{place}: the address of an index holds a user's name or password",
            option=option,
            hint="give secrets to pip or uv: netrc, keyring, PIP_EXTRA_INDEX_URL or UV_INDEX",
        )
    return f"{flag} {url}"
