"""Which program installs, uv or pip, and how it is called: with the user's own settings, from wheels alone, by hash."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trtbuild import programs
from trtbuild.toolchains import settings

#: Settings that say where packages come from. Who has set up one of the two programs is asked through that one.
_UV_SETTINGS = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
    "UV_CONFIG_FILE",
    "UV_OFFLINE",
)
_PIP_SETTINGS = (
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "proxy",
    "client-cert",
    "trusted-host",
)
_PIP_VARIABLES = tuple(f"PIP_{name.upper().replace('-', '_')}" for name in _PIP_SETTINGS)

_AS_PIP = {
    "UV_DEFAULT_INDEX": "PIP_INDEX_URL",
    "UV_INDEX_URL": "PIP_INDEX_URL",
    "UV_INDEX": "PIP_EXTRA_INDEX_URL",
    "UV_EXTRA_INDEX_URL": "PIP_EXTRA_INDEX_URL",
    "UV_FIND_LINKS": "PIP_FIND_LINKS",
    "UV_NO_INDEX": "PIP_NO_INDEX",
}

_RETRIES = "3"


@dataclass(frozen=True)
class Installer:
    """`name` is uv or pip; `uv` its path."""

    name: str
    uv: str | None = None

    def install(self, python: Path, requirements: Path, work: Path) -> list[str]:
        """The command that installs a lock for the interpreter `python`, into its own environment. Run it in `work`."""
        wheels = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
        if self.uv is not None:
            # Copies: a link to uv's cache would change when that does.
            command = [self.uv, "pip", "install", "--python", str(python), "--link-mode", "copy", *wheels]
            return [*command, "--no-progress", "--color", "never", "--requirement", str(requirements)]
        command = settings.pip_command(python, work)
        command += ["install", *wheels, "--no-compile", "--ignore-installed"]
        command += ["--no-warn-script-location", "--progress-bar", "off", "--retries", _RETRIES]
        return [*command, "--no-input", "--disable-pip-version-check", "--requirement", str(requirements)]


def download(python: Path, requirements: Path, wheels: Path, work: Path) -> list[str]:
    """The command that fetches the wheels of a lock for the interpreter `python`. uv has none, so it is pip's."""
    command = settings.pip_command(python, work)
    command += ["download", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
    command += ["--progress-bar", "off", "--retries", _RETRIES, "--no-input", "--disable-pip-version-check"]
    return [*command, "--dest", str(wheels), "--requirement", str(requirements)]


def environment(work: Path) -> dict[str, str]:
    """What the installer is given: the user's own settings of where packages come from. `work` is an own folder."""
    temporary = work / "tmp"  # a wheel may be larger than /tmp
    temporary.mkdir(exist_ok=True)
    settings.folder_for_uv(temporary)
    return {**settings.environment(), "TMPDIR": str(temporary)}


def as_pip(environ: Mapping[str, str]) -> dict[str, str]:
    """With uv's settings of where packages come from in place of pip's, for what uv cannot do, where there are any."""
    if not any(environ.get(name) for name in _AS_PIP):
        return dict(environ)
    found = {name: value for name, value in environ.items() if name not in _AS_PIP.values()}
    for theirs, ours in _AS_PIP.items():
        if value := environ.get(theirs):
            urls = [
                each.partition("=")[2] if re.match(r"[\w.-]+=", each) else each
                for each in re.split(r"[\s,]+", value)
            ]
            found[ours] = " ".join([*found.get(ours, "").split(), *urls])
    return found


def choose(environ: Mapping[str, str] | None = None) -> Installer:
    """uv where it is there, unless the user has told pip alone where packages come from."""
    found = find_uv()
    if found is None:
        return Installer("pip")
    settings = os.environ if environ is None else environ
    if not _uv_is_set_up(settings) and _pip_is_set_up(settings):
        return Installer("pip")
    return Installer("uv", found)


def find_uv() -> str | None:
    """uv beside this Python (the extra `uv`), else on PATH."""
    return programs.find("uv", beside=Path(sysconfig.get_path("scripts")))


def _uv_is_set_up(environ: Mapping[str, str]) -> bool:
    config = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    files = (config / "uv" / "uv.toml", Path("/etc/uv/uv.toml"))
    return any(environ.get(name) for name in _UV_SETTINGS) or any(file.is_file() for file in files)


def _pip_is_set_up(environ: Mapping[str, str]) -> bool:
    if any(environ.get(name) for name in _PIP_VARIABLES):
        return True
    command = [*settings.own_pip(), "config", "list", "--disable-pip-version-check"]
    listed = programs.run(command, settings.environment(environ), "/")
    names = {line.partition("=")[0].rpartition(".")[2] for line in listed.out.splitlines()}
    return not names.isdisjoint(_PIP_SETTINGS)
