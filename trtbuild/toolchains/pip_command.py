"""How pip is called: with the user's own settings of where packages come from, from wheels alone, by hash.

pip compares a wheel with its hash before it unpacks the wheel. uv unpacks while it hashes, so uv makes locks and
installs nothing.
"""

from __future__ import annotations

from pathlib import Path

from trtbuild.toolchains import indexes, settings

_BY_HASH = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
_QUIETLY = ["--progress-bar", "off", "--retries", "3", "--no-input", "--disable-pip-version-check"]


def install(python: Path, requirements: Path, work: Path) -> list[str]:
    """The command that installs a lock for the interpreter `python`, into its own environment. Run it in `work`."""
    command = [*settings.pip_command(python, work), "install", *_BY_HASH, *_QUIETLY]
    command += ["--no-compile", "--ignore-installed", "--no-warn-script-location"]
    return [*command, "--requirement", str(requirements)]


def download(python: Path, requirements: Path, wheels: Path, work: Path) -> list[str]:
    """The command that fetches the wheels of a lock for the interpreter `python` into the folder `wheels`."""
    command = [*settings.pip_command(python, work), "download", *_BY_HASH, *_QUIETLY]
    return [*command, "--dest", str(wheels), "--requirement", str(requirements)]


def environment(work: Path) -> dict[str, str]:
    """What pip is given: the user's own settings of where packages come from. `work` is an own folder."""
    temporary = work / "tmp"  # a wheel may be larger than /tmp
    temporary.mkdir(exist_ok=True)
    return {**indexes.for_pip(settings.environment()), "TMPDIR": str(temporary)}
