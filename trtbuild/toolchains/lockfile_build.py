"""Makes a lock from the pins that a person writes: uv resolves them for every Python and Linux machine at once.

The pins are a requirements file: `name==version` for the packages that the bytes of results depend on (they become the
lock's `chosen`), looser requirements for what else must be there, and the indexes that have what PyPI lacks.
"""

from __future__ import annotations

import re
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from trtbuild.errors import InputError
from trtbuild.processes import programs
from trtbuild.redact import redact_urls
from trtbuild.toolchains import lock, settings
from trtbuild.toolchains.lock import Download, Lock, PackagePin, normal

MINORS = (11, 12, 13, 14)  # of Python 3: those whose download sizes are listed
MACHINES = ("x86_64", "aarch64")
_GLIBC = 41  # 2.41: the newest whose wheels count

_CHOSEN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*[^\s;]+")
_OPTION = re.compile(r"--(?:extra-)?index-url|--find-links")


def make(pins: Path, before: Path | None, upgrade: bool) -> Lock:
    """The lock of the file `pins`, as near to the lock `before` as they allow, unless `upgrade`.

    Raises InputError if uv is missing, if there is no solution, or if a package has no wheel.
    """
    text = lock.read_text(pins, str(pins))
    uv = settings.find_uv()
    if uv is None:
        raise InputError("a lock is made by uv, which is not here", hint="pip install 'trtbuild[uv]'")
    with tempfile.TemporaryDirectory(prefix="trtbuild-lock-") as folder:
        out, kept = Path(folder) / "pylock.toml", Path(folder) / "kept.txt"
        if before is not None and not upgrade:
            # uv keeps to the versions of the file that it is to write, where the pins allow it.
            kept.write_text(_versions(lock.read(before, str(before))), encoding="utf-8")
        _compile(uv, pins, kept, folder)
        _compile(uv, pins, out, folder, "--format", "pylock.toml", "--constraint", str(kept))
        document = tomllib.loads(out.read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines()]
    chosen = {normal(match[1]) for line in lines if (match := _CHOSEN.match(line))}
    indexes = [line for line in lines if _OPTION.match(line)]
    made = _lock(pins.stem, document["packages"], chosen, indexes)
    return lock.parse(made.text, str(pins), pins.stem, str(pins))  # what is written reads as it was meant


def _compile(uv: str, pins: Path, out: Path, folder: str, *more: str) -> None:
    command = [uv, "pip", "compile", str(pins.absolute()), "--output-file", str(out), *more, "--universal"]
    command += ["--python-version", f"3.{MINORS[0]}", "--only-binary", ":all:", "--quiet", "--color", "never"]
    # Named, because uv would otherwise start the Python of a `.venv` in a folder above to examine it.
    command += ["--python", sys.executable]
    done = programs.run(command, settings.environment(), settings.folder_for_uv(Path(folder)))
    if done.code:
        raise InputError(
            f"uv finds no lock for {pins}",
            option="toolchain lock",
            details=[f"  | {redact_urls(line)}" for line in done.err.strip().splitlines()[-12:]],
        )


def _versions(before: Lock) -> str:
    return "".join(
        f"{pin.name}=={pin.version}" + (f" ; {pin.marker}" if pin.marker else "") + "\n" for pin in before.pins
    )


def _lock(title: str, packages: list[dict[str, Any]], chosen: Iterable[str], indexes: Iterable[str]) -> Lock:
    pins: list[PackagePin] = []
    wheels: list[tuple[PackagePin, list[tuple[frozenset[Tag], int]]]] = []
    for package in packages:
        fitting = [(tags, wheel) for wheel in package.get("wheels", ()) if (tags := _tags(_name(wheel)))]
        marker = package.get("marker")
        if not fitting:
            if marker is not None and not any(_applies(marker, _markers(m, p)) for p in MINORS for m in MACHINES):
                continue  # it is for other systems alone
            raise InputError(f"{package['name']} {package['version']} has no wheel for Linux", option=title)
        pin = PackagePin(
            normal(package["name"]),
            package["version"],
            marker,
            tuple(sorted({wheel["hashes"]["sha256"] for _, wheel in fitting})),
        )
        pins.append(pin)
        wheels.append((pin, [(tags, int(wheel.get("size", 0))) for tags, wheel in fitting]))
    downloads = {}
    for machine in MACHINES:
        for minor in MINORS:
            total = _download(wheels, machine, minor)
            if total is not None:
                downloads[f"cp3{minor}", machine] = total
    return Lock(title, tuple(pins), tuple(sorted(chosen)), tuple(indexes), downloads)


def _name(wheel: Mapping[str, Any]) -> str:
    return str(wheel.get("name") or str(wheel["url"]).partition("#")[0].rpartition("/")[2])


def _tags(name: str) -> frozenset[Tag]:
    """The tags of a wheel that may run on Linux and CPython; none of another one."""
    try:
        tags = parse_wheel_filename(name)[3]
    except InvalidWheelFilename:
        return frozenset()
    ours = [
        tag
        for tag in tags
        if (tag.platform == "any" or "linux" in tag.platform) and tag.interpreter.startswith(("cp", "py"))
    ]
    return frozenset(ours)


def _download(
    wheels: list[tuple[PackagePin, list[tuple[frozenset[Tag], int]]]], machine: str, minor: int
) -> Download | None:
    """What Python 3.`minor` on `machine` fetches; None where a package has no wheel for it."""
    platforms = [f"manylinux_2_{glibc}_{machine}" for glibc in range(_GLIBC, 4, -1)]
    platforms += [f"manylinux{year}_{machine}" for year in ("2014", "2010", "1")] + [f"linux_{machine}"]
    supported = [*cpython_tags((3, minor), platforms=platforms)]
    supported += compatible_tags((3, minor), f"cp3{minor}", platforms)
    rank = {tag: place for place, tag in enumerate(supported)}
    count = size = 0
    for pin, listed in wheels:
        if pin.marker is not None and not _applies(pin.marker, _markers(machine, minor)):
            continue
        fitting = [
            (min(rank[tag] for tag in tags & rank.keys()), wheel) for tags, wheel in listed if tags & rank.keys()
        ]
        if not fitting:
            return None
        count, size = count + 1, size + min(fitting)[1]
    return Download(count, size)


def _applies(marker: str, markers: Mapping[str, str]) -> bool:
    return Marker(marker).evaluate(dict(markers))


def _markers(machine: str, minor: int) -> dict[str, str]:
    return {
        "implementation_name": "cpython",
        "implementation_version": f"3.{minor}.0",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"3.{minor}.0",
        "python_version": f"3.{minor}",
        "sys_platform": "linux",
        "extra": "",
    }
