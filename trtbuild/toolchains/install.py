"""Installs a lock into a folder: from wheels alone, each checked against its hash, and byte-compiled."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from trtbuild.errors import InputError
from trtbuild.processes import programs
from trtbuild.redact import redact_urls
from trtbuild.toolchains import pip_command, venv
from trtbuild.toolchains.lock import Lock, PackagePin, normal
from trtbuild.toolchains.pythons import Python

#: Called with (packages done, packages in all).
OnPackage = Callable[[int, int], None]

_NAMES = re.compile(r"^\s*(?:Collecting|Downloading|Processing|Using cached)\s+(\S+)")
_TAIL = 6  # lines of pip in an error
_UNREACHABLE = ("connection broken", "Max retries", "NewConnectionError", "No matching distribution found")


def install(
    lock: Lock, python: Python, files: Path, work: Path, on_package: OnPackage, links: Path | None = None
) -> dict[str, str]:
    """Install what `lock` says for `python` below the new folder `files`, with `work` for what is in between.

    Returns package -> version. Wheels come from the user's indexes, or from the folder `links` alone.
    Raises InputError, OSError.
    """
    wanted = lock.wanted(python.markers)
    # In a plain virtual environment: installers do not expect folders that are links.
    home = work / "python"
    interpreter = venv.make(home, None, python)
    requirements = work / "lock.txt"
    requirements.write_text(lock.text, encoding="utf-8")
    command = pip_command.install(interpreter, requirements, work)
    if links is not None:
        command += ["--no-index", "--find-links", str(links)]
    output, status = _run(command, pip_command.environment(work), _Count(wanted, on_package))
    if status:
        raise _explained(lock, python, output)
    on_package(len(wanted), len(wanted))
    packages = {
        normal(distribution.metadata["Name"]): distribution.version
        for distribution in metadata.distributions(path=[str(venv.packages_of(home, python))])
    }
    if packages != {name: pin.version for name, pin in wanted.items()}:
        odd = sorted({*packages, *wanted} - {name for name in wanted if packages.get(name) == wanted[name].version})
        raise InputError(
            f"pip installed something else than the toolchain {lock.title} locks: {', '.join(odd[:5])}",
            option="executor",
        )
    _compile(interpreter, home, work)
    _take_over(home, files)
    return packages


def download(lock: Lock, python: Python, wheels: Path, work: Path, on_package: OnPackage) -> None:
    """Fetch the wheels that `lock` says for `python` into the folder `wheels`. Raises InputError, OSError."""
    wanted = lock.wanted(python.markers)
    interpreter = venv.make(work / "python", None, python)
    requirements = work / "lock.txt"
    requirements.write_text(lock.text, encoding="utf-8")
    command = pip_command.download(interpreter, requirements, wheels, work)
    output, status = _run(command, pip_command.environment(work), _Count(wanted, on_package))
    if status:
        raise _explained(lock, python, output)


class _Count:
    """Counts the packages that an installer's lines are about."""

    def __init__(self, wanted: Mapping[str, PackagePin], on_package: OnPackage) -> None:
        self._wanted, self._on_package = wanted, on_package
        self._seen: set[str] = set()

    def __call__(self, line: str) -> None:
        match = _NAMES.match(line)
        if match is None:
            return
        name = normal(re.split(r"[=<>!~@ -]\d|[=<>!~@]", match[1])[0])
        if name in self._wanted and name not in self._seen:
            self._seen.add(name)
            self._on_package(len(self._seen) - 1, len(self._wanted))


def _run(command: list[str], environment: Mapping[str, str], on_line: Callable[[str], None]) -> tuple[list[str], int]:
    """All lines that `command` printed, and its exit status. Raises OSError."""
    process = programs.begin(
        command,
        environment,
        environment["TMPDIR"],  # an own folder
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    lines: list[str] = []
    assert process.stdout is not None  # noqa: S101  # it was opened as a pipe
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            on_line(line)
        status = process.wait()
    except BaseException:
        programs.end(process)
        raise
    finally:
        process.stdout.close()
    return lines, status


def _take_over(home: Path, files: Path) -> None:
    """Move the packages, and what wheels put beside them (`share/`); scripts, which name this folder, stay behind."""
    files.mkdir()
    for inner in home.iterdir():
        if inner.name not in ("bin", "pyvenv.cfg", ".lock") and not inner.is_symlink():
            inner.rename(files / inner.name)


def _compile(interpreter: Path, home: Path, work: Path) -> None:
    """Byte-compile all. What is no Python of this release (templates, tests of errors) is left as it is."""
    # Unchecked: the files never change, and a copy that does not keep times must not compile at each start.
    command = programs.python(interpreter, "-m", "compileall", "-q", "-j", "0")
    command += ["--invalidation-mode", "unchecked-hash"]
    programs.run([*command, "-s", str(home), str(home / "lib")], programs.allowed(("PATH",)), work)


def _explained(lock: Lock, python: Python, output: list[str]) -> InputError:
    text = "\n".join(output)
    option = "executor"
    if wrong := _other_bytes(text):
        name, got = wrong
        return InputError(
            f"the index's wheel of {name} is not the one that the toolchain {lock.title} locks"
            + (f": its sha256 is {got}" if got else ""),
            option=option,
            hint="use another index; if you trust these bytes, make a lock of your own: `trtbuild toolchain lock`",
            details=list(_shown(output)),
        )
    if any(sign in text for sign in _UNREACHABLE):
        hint = (
            f"without a network: `trtbuild toolchain export {lock.title} -o FILE` where there is one, then here "
            "`trtbuild toolchain import FILE`; else check pip's index and proxy"
        )
    else:
        hint = "pip says why above; executor=process takes a Python that holds the packages already"
    return InputError(
        f"pip could not install the toolchain {lock.title} for Python {python.release}",
        option=option,
        hint=hint,
        details=list(_shown(output)),
    )


def _other_bytes(text: str) -> tuple[str, str | None] | None:
    """The package whose bytes are not the locked ones, and their sha256, in pip's words."""
    if "DO NOT MATCH THE HASHES" not in text:
        return None
    name = re.search(r"HASHES.*?\n\s*(\S+?)(?: from \S+)?(?: \(from [^\n]*)?:?\n\s*Expected", text, re.DOTALL)
    got = re.search(r"Got\s+([0-9a-f]{64})", text)
    return (name[1] if name else "a package"), (got[1] if got else None)


def _shown(output: list[str]) -> Iterator[str]:
    lines = [line for line in output if line.strip()]
    errors = [line for line in lines if line.lstrip().lower().startswith(("error", "cause", "hint"))]
    for line in (errors or lines)[-_TAIL:]:
        yield f"  | {redact_urls(line.strip())[:300]}"
