"""What the compiler's steps run in: toolchains that are installed, missing or damaged, or a Python that has it all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trtbuild.compilers.base import Compiler
from trtbuild.config import choices, schema
from trtbuild.doctor.checks import Examined, judged
from trtbuild.errors import InputError
from trtbuild.toolchains import builtin, lock, pythons
from trtbuild.toolchains.environments import altered, holds, name_of
from trtbuild.toolchains.lock import Lock
from trtbuild.worker import matches
from trtstore import Store, StoreFailure, format_size


def check(config: schema.Config, compiler: Compiler, store: Store | None) -> Iterator[Examined]:
    """One for each toolchain of this config, and one for the compiler's own packages where no lock has them."""
    for name in compiler.needs.toolchains:
        if name == "genai" and config.network.frontend is not choices.Frontend.genai:
            continue
        try:
            own = config.compiler.locks.get(name)
            locked = builtin.load(name) if own is None else lock.read(Path(own).expanduser(), name)
            yield _toolchain(config, name, locked, store)
        except (InputError, StoreFailure) as trouble:
            yield judged(f"toolchain {name}", False, trouble.message, required=True)
    in_container = config.executor.name is choices.Executor.container
    if compiler.needs.package not in _locked(compiler) and not in_container:
        yield _packages(config, compiler)


def _locked(compiler: Compiler) -> set[str]:
    return {package for name in compiler.needs.toolchains for package in builtin.load(name).packages}


def _toolchain(config: schema.Config, name: str, locked: Lock, store: Store | None) -> Examined:
    python = pythons.python(config.executor.python, locked.chosen)
    titled = f"toolchain {name}"
    if holds(python, locked) and config.executor.name is not choices.Executor.managed:
        return Examined(titled, "ok", f"{python.path} has it")
    mend = (f"trtbuild toolchain rm {name}", f"trtbuild toolchain install {name}")
    environment = None if store is None else store.environments.find(name_of(locked, python))
    if environment is not None and store is not None:
        wrong = altered(environment, store)
        words = f"installed, {format_size(environment.bytes)}" if not wrong else f"damaged: {wrong[0]}"
        return judged(titled, not wrong, words, required=True, mend=mend)
    fetch = locked.downloads.get((python.tag, python.machine))
    much = "" if fetch is None else f", about {format_size(fetch.bytes)} to fetch"
    by_hand = config.executor.name is choices.Executor.process
    words = f"not in {python.path}{much}" if by_hand else f"not installed yet: the first build does it{much}"
    return judged(titled, False, words, required=by_hand, mend=() if by_hand else mend[1:])


def _packages(config: schema.Config, compiler: Compiler) -> Examined:
    """The compiler itself, in the current Python."""
    wanted = {compiler.needs.package: config.compiler.version, **config.compiler.packages}
    try:
        python = pythons.python(config.executor.python, wanted)
    except InputError as wrong:
        return judged(compiler.needs.package, False, wrong.message, required=True)
    there = python.versions.get(compiler.needs.package)
    if there is None:
        words = f"{compiler.needs.package} is not in {python.path}"
    else:
        exact = config.compiler.version not in ("installed", "locked")
        others = [
            f"{name} {python.versions.get(name, 'is not there')}, {version} is pinned"
            for name, version in wanted.items()
            if exact and not matches(python.versions.get(name, ""), version)
        ]
        words = "; ".join(others) if others else f"{compiler.needs.package} {there} in {python.path}"
        if not others:
            return Examined(compiler.needs.package, "ok", words, required=True)
    mend = [f"pip install 'trtbuild[{compiler.needs.extra}]'    # or executor.python=/path/to/a/python that has it"]
    mend += ["# or executor=container, and compiler.image=NAME@sha256:…"] if compiler.needs.image else []
    return judged(compiler.needs.package, False, words, required=True, mend=mend)
