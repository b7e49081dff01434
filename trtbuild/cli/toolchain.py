"""The command `trtbuild toolchain`: see, install, check, lock and carry the environments that steps run in."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from trtbuild.cli.toolchain_progress import ToolchainReporter
from trtbuild.config import locations
from trtbuild.errors import InputError, NotInStoreError, StoreError, TrtbuildError
from trtbuild.toolchains import builtin, bundle, environments, lockfile_build, pythons, team_wheels
from trtbuild.toolchains.environments import ToolchainEnvironments
from trtbuild.toolchains.lock import Lock
from trtbuild.toolchains.pythons import Python
from trtstore import (
    Environment,
    Output,
    Progress,
    Store,
    StoreFailure,
    TrustPolicy,
    add_trust_options,
    command_parser,
    format_ago,
    format_size,
    format_table,
    open_signer,
    open_team,
)

INTERRUPTED = 130

_EPILOG = """\
NAME is a toolchain that ships with trtbuild (`trtbuild toolchain ls`), or the path of a lock.
exit codes: 0, 1 failed, 2 bad input, 3 not installed, 4 altered, or the store refused, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the words after `trtbuild toolchain`; returns the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    args = _parser().parse_args(sys.argv[2:] if argv is None else argv)
    output = Output(getattr(args, "json", False))
    try:
        store = Store.open(locations.root(getattr(args, "store", None)))
        code: int = args.run(_Words(args, output, ToolchainEnvironments(store, ToolchainReporter())))
        return code
    except TrtbuildError as error:
        return _failed(output, error)
    except StoreFailure as failure:
        return _failed(output, StoreError(failure.message, option="store.root", hint=failure.hint))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


class _Words:
    """The words of one command, and what they stand for."""

    def __init__(self, args: argparse.Namespace, output: Output, environments: ToolchainEnvironments) -> None:
        self.args, self.output, self.kept = args, output, environments

    def locks(self) -> list[Lock]:
        """Those that were named, or all that ship."""
        return [builtin.find(name) for name in self.args.names or builtin.names()]

    def python(self, lock: Lock) -> Python:
        """The Python that toolchains are installed for."""
        return pythons.python(getattr(self.args, "python", None), lock.chosen)

    def find(self, lock: Lock) -> Environment | None:
        """Its environment, where it is installed."""
        return self.kept.find(lock, self.python(lock))


def _ls(asked: _Words) -> int:
    if asked.args.names:
        return _show(asked)
    rows, listed = [], []
    known = {}
    for lock in asked.locks():
        environment, python = asked.find(lock), asked.python(lock)
        known[environments.name_of(lock, python)] = lock
        here = environments.holds(python, lock)
        fetch = lock.downloads.get((python.tag, python.machine))
        missing = "missing" if fetch is None else f"missing, {format_size(fetch.bytes)} to fetch"
        state = "installed" if environment else "at hand" if here else missing
        chosen = ", ".join(f"{name} {version}" for name, version in environments.chosen(lock, python).items())
        rows.append([lock.title, lock.digest[:12], state, *_amounts(environment), chosen])
        document = {"toolchain": lock.title, "lock": lock.digest, "at_hand": here}
        listed.append({**document, "fetch_bytes": None if fetch is None else fetch.bytes, **_installed(environment)})
    for other in asked.kept.environments.all():
        if other.name not in known:
            python_of = str(other.about.get("python", "another Python"))
            rows.append([other.title, other.name[:12], f"installed ({python_of})", *_amounts(other), ""])
            listed.append({"toolchain": other.title, "lock": other.about.get("lock"), **_installed(other)})
    titles = ["TOOLCHAIN", "LOCK", "STATE", ">SIZE", "USED", "CHOSEN"]
    asked.output.say({"toolchains": listed}, list(format_table(titles, rows)))
    return 0


def _amounts(environment: Environment | None) -> list[str]:
    if environment is None:
        return ["", ""]
    return [format_size(environment.bytes), format_ago(time.time() - environment.used)]


def _installed(environment: Environment | None) -> dict[str, Any]:
    if environment is None:
        return {"installed": False}
    numbers = {"bytes": environment.bytes, "files": environment.files, "used": environment.used}
    return {"installed": True, "path": str(environment.path), **numbers, "about": dict(environment.about)}


def _show(asked: _Words) -> int:
    rows, listed = [], []
    for lock in asked.locks():
        for name, pin in sorted(lock.wanted(asked.python(lock).markers).items()):
            rows.append([lock.title, name, pin.version, "chosen" if name in lock.chosen else ""])
            listed.append({"toolchain": lock.title, "package": name, "version": pin.version})
    asked.output.say({"packages": listed}, list(format_table(["TOOLCHAIN", "PACKAGE", "VERSION", ""], rows)))
    return 0


def _install(asked: _Words) -> int:
    installed = [(lock, asked.kept.ensure(lock, asked.python(lock))) for lock in asked.locks()]
    return _say_installed(asked, installed)


def _say_installed(asked: _Words, installed: Sequence[tuple[Lock, Environment]]) -> int:
    done = [{"toolchain": lock.title, "lock": lock.digest, **_installed(one)} for lock, one in installed]
    asked.output.say({"toolchains": done}, [str(one.path) for _, one in installed])
    return 0


def _path(asked: _Words) -> int:
    (lock,) = asked.locks()
    python = asked.python(lock)
    if asked.find(lock) is None:
        raise NotInStoreError(
            f"the toolchain {lock.title} is not installed for Python {python.release}",
            hint=f"trtbuild toolchain install {asked.args.names[0]}",
        )
    with (
        asked.kept.store.scratch() as spare,
        asked.kept.using(lock, python, spare) as interpreter,
    ):
        asked.output.say({"toolchain": lock.title, "python": str(interpreter)}, [str(interpreter)])
    return 0


def _verify(asked: _Words) -> int:
    there = asked.kept.environments.all()
    if asked.args.names:
        digests = {lock.digest: lock.title for lock in asked.locks()}
        there = [one for one in there if one.about.get("lock") in digests]
        absent = digests.keys() - {str(one.about.get("lock")) for one in there}
        if absent:
            raise NotInStoreError(f"not installed: {', '.join(sorted(digests[each] for each in absent))}")
    progress = Progress("verifying", sum(one.bytes for one in there))
    wrong = [(one, environments.altered(one, asked.kept.store, progress.add)) for one in there]
    progress.close()
    lines = []
    for one, troubles in wrong:
        lines += [f"altered  {one.title} in {one.path}: {trouble}" for trouble in troubles]
        if troubles:
            lines.append(f"         trtbuild toolchain rm {one.name[:12]}: the next use installs it anew")
        else:
            lines.append(f"whole    {one.title}, {one.files} files, {format_size(one.bytes)}")
    document = [{"toolchain": one.title, "path": str(one.path), "altered": troubles} for one, troubles in wrong]
    asked.output.say({"toolchains": document}, lines or ["no toolchain is installed"])
    return StoreError.exit_code if any(troubles for _, troubles in wrong) else 0


def _rm(asked: _Words) -> int:
    if not asked.args.names and not asked.args.all:
        raise InputError("nothing was named", hint="name toolchains, or --all")
    there = asked.kept.environments.all()
    if asked.args.names:
        # A lock by its name or path, or the first digits of one that is installed.
        prefixes = tuple(name for name in asked.args.names if _is_digits(name))
        digests = {builtin.find(name).digest for name in asked.args.names if not _is_digits(name)}
        there = [one for one in there if one.about.get("lock") in digests or one.name.startswith(prefixes)]
        if not there:
            raise NotInStoreError(f"not installed: {', '.join(asked.args.names)}")
    for one in there:
        asked.kept.environments.remove(one.name)
    asked.output.say(
        {"removed": [one.name for one in there]},
        [f"removed {one.title} {one.name[:12]}, {format_size(one.bytes)}" for one in there],
    )
    return 0


def _is_digits(name: str) -> bool:
    return len(name) >= 4 and set(name) <= set("0123456789abcdef") and name not in builtin.names()


def _lock(asked: _Words) -> int:
    done = []
    for name in asked.args.names:
        shipping = name in builtin.names() or (builtin.FOLDER / f"{name}.in").is_file()
        pins = builtin.FOLDER / f"{name}.in" if shipping else Path(name)
        if shipping and asked.args.output is None and not (builtin.FOLDER.parents[1] / "pyproject.toml").is_file():
            raise InputError(f"{name} ships with trtbuild: its lock is not altered here", hint="write one: -o FILE.txt")
        target = Path(asked.args.output) if asked.args.output else pins.with_suffix(".txt")
        made = lockfile_build.make(pins, target if target.is_file() else None, asked.args.upgrade)
        try:
            target.write_text(made.text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error.strerror}", option="--output") from None
        done.append((target, made))
    asked.output.say(
        {"locks": [{"file": str(file), "lock": made.digest, "packages": made.packages} for file, made in done]},
        [f"{file}  {made.digest[:12]}  {len(made.packages)} packages" for file, made in done],
    )
    return 0


def _export(asked: _Words) -> int:
    locks, teller = asked.locks(), asked.kept.watcher
    file = Path(asked.args.output)
    if not file.absolute().parent.is_dir():
        raise InputError(f"there is no folder {file.absolute().parent}", option="--output")
    with asked.kept.store.scratch() as work:
        python = asked.python(locks[0])
        for lock in locks:
            environments.check(lock, python)
        teller.step_started(f"fetching the wheels of {', '.join(lock.title for lock in locks)}")
        count = bundle.write(
            locks, python, file, work, lambda done, total: teller.progress("wheels", done, total, "wheels")
        )
    size = file.stat().st_size
    asked.output.say(
        {"file": str(file), "locks": [lock.digest for lock in locks], "wheels": count, "bytes": size},
        [f"wrote {count} wheels ({format_size(size)}) for Python {python.release} on {python.machine} to {file}"],
    )
    return 0


def _push(asked: _Words) -> int:
    args, store = asked.args, asked.kept.store
    url = locations.team(args.team)
    if url is None:
        raise InputError("no team store was named", option="--team", hint=f"--team URL, or set {locations.TEAM}")
    team = open_team(url, store, TrustPolicy(args.trust), args.trusted, asked.output.warn)
    signer = open_signer(args.key)
    done: list[dict[str, Any]] = []
    said: list[str] = []
    for lock in asked.locks():
        record = team_wheels.publish(lock, asked.python(lock), store, asked.kept.watcher.note)
        progress = Progress(f"pushing {lock.title}", record.bytes)
        pushed = team.push(store, record.key, signer, progress.tell)
        progress.close()
        sent = {"new": pushed.new, "sent_bytes": pushed.bytes}
        done.append({"toolchain": lock.title, "key": record.key, **sent})
        how = "pushed" if pushed.new else "was there"
        said.append(f"{lock.title} {how}, {format_size(pushed.bytes)} sent")
    asked.output.say({"pushed": done}, said)
    return 0


def _import(asked: _Words) -> int:
    with asked.kept.store.scratch() as work:
        named = None if asked.args.trust else asked.args.lock
        taken = bundle.read(Path(asked.args.file), work, bundle.known(named))
        installed = [(lock, asked.kept.ensure(lock, asked.python(lock), taken.wheels)) for lock in taken.locks]
    return _say_installed(asked, installed)


def _parser() -> argparse.ArgumentParser:
    parser, verb = command_parser("trtbuild toolchain", __doc__, _EPILOG)

    def command(
        name: str, run: Callable[[_Words], int], about: str, names: str | None, *, python: bool = True
    ) -> argparse.ArgumentParser:
        made = verb(name, run, about)
        if names is not None:
            made.add_argument("names", nargs=names, metavar="NAME")
        if python:
            made.add_argument("--python", metavar="PATH", help="for this Python, instead of the current one")
        return made

    command("ls", _ls, "what ships and what is installed; with names, their packages", "*")
    command("install", _install, "install what is not there yet", "+")
    path = command("path", _path, "print the Python that has it", None)
    path.add_argument("names", nargs=1, metavar="NAME")
    command("verify", _verify, "read every byte of what is installed (exit code 4: altered)", "*", python=False)
    lock = command("lock", _lock, "resolve pins (NAME, or FILE.in) with uv and write the lock", "+", python=False)
    lock.add_argument("-o", "--output", metavar="FILE", help="default: beside the pins, as .txt")
    lock.add_argument("--upgrade", action="store_true", help="take the newest of what the pins leave open")
    rm = command("rm", _rm, "remove; the next use installs it anew", "*", python=False)
    rm.add_argument("--all", action="store_true", help="all that are installed")
    export = command("export", _export, "write the wheels to one file, for a site without a network", "+")
    export.add_argument("-o", "--output", metavar="FILE", required=True)
    push = command("push", _push, "put the wheels into the team store, signed, for who installs them later", "+")
    push.add_argument("--team", metavar="URL", help=f"default: ${locations.TEAM}")
    push.add_argument("--key", metavar="NAME", help="the key that signs, where there are several")
    add_trust_options(push)
    taken = command("import", _import, "install from such a file, every wheel checked", None)
    taken.add_argument("file", metavar="FILE")
    taken.add_argument("--lock", action="append", default=[], metavar="FILE.txt", help="one that it may hold")
    taken.add_argument("--trust", action="store_true", help="install it, although its locks are not known to trtbuild")
    return parser


def _failed(output: Output, error: TrtbuildError) -> int:
    print("\n".join(error.lines()), file=sys.stderr)
    if output.json:
        output.say({"error": error.document()}, ())
    return error.exit_code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
