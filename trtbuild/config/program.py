"""Hydra's program around a config. Every config passes the gate; a command line of plain options is composed once."""

from __future__ import annotations

import argparse
import io
import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from trtbuild.config import composer, yaml_files
from trtbuild.config.config_files import remember
from trtbuild.config.hydra_gate import CONF, Gate
from trtbuild.errors import InputError

_VERSION = "1.3"  # whose ways Hydra keeps to
_ROOT = "config"  # the file that everything starts from
_PLAIN = re.compile(r"[\w./=@+:,%-]+")  # a word that a shell leaves as it is
_TAKE_A_WORD = (
    "--config-dir",
    "-cd",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--cfg",
    "-c",
    "--package",
    "-p",
)


def run(words: Sequence[str], task: Callable[[DictConfig], None]) -> None:
    """Give `task` the config that `words` ask for; of a sweep the launcher gets the points. Raises what Hydra raises.

    Hydra's main composes each config twice, first to see whether it asks for a sweep itself, and makes a folder.
    """
    yaml_files.watch()
    asked = _asked(words)
    if asked is None:
        _with_flags(words, task)
        return
    with _program(asked.folder) as program:
        if asked.several:
            remember(program.config_loader)
            program.multirun(_ROOT, task, [*asked.options, "hydra.mode=MULTIRUN"])
            return
        alone = composer.once(program.config_loader, _ROOT, asked.options)
        if alone is None:
            composed = program.compose_config(_ROOT, asked.options, RunMode.RUN)
    if alone is not None:
        task(alone)
        return
    if composed.hydra.mode is RunMode.MULTIRUN:
        _with_flags(words, task)
        return
    task(_apart_from_hydra(composed))


@dataclass
class _Asked:
    """A command line of options, with the flags that most command lines have."""

    options: list[str]
    several: bool = False  # -m
    folder: Path | None = None  # --config-dir


def _asked(words: Sequence[str]) -> _Asked | None:
    """None where there are other flags, or options of Hydra's own."""
    asked, rest = _Asked([]), iter(words)
    for word in rest:
        name, _, value = word.partition("=")
        if word in ("-m", "--multirun"):
            asked.several = True
        elif name in ("--config-dir", "-cd") and asked.folder is None:
            folder = value or next(rest, "")
            if not folder or not Path(folder).is_dir():
                return None  # Hydra says what is wrong with it
            asked.folder = Path(folder).absolute()
        elif word.startswith("-") or re.match(r"[+~]*hydra\b", word):
            return None
        else:
            asked.options.append(word)
    return asked


def _apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options, and flags with their words: Hydra's parser wants all options in one place, and no flag between them."""
    options: list[str] = []
    flags: list[str] = []
    for before, word in pairwise(("", *words)):
        is_option = not word.startswith("-") and ("=" in word or word.startswith("~"))
        (options if is_option and before not in _TAKE_A_WORD else flags).append(word)
    return options, flags


@contextmanager
def _program(folder: Path | None, root: str = CONF, scratch: Path | None = None) -> Iterator[Hydra]:
    version.setbase(_VERSION)
    path = create_config_search_path(root)
    if folder is not None:
        path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    program = Hydra(task_name="trtbuild", config_loader=Gate(path, scratch))
    GlobalHydra.instance().initialize(program)
    try:
        yield program
    finally:
        GlobalHydra.instance().clear()


def _with_flags(words: Sequence[str], task: Callable[[DictConfig], None]) -> None:
    """As Hydra's own main, which would call what a config names: here all is composed through the gate."""
    options, flags = _apart(words)
    # Hydra prints through a logger, which must not report that the reader of its output has gone.
    logging.raiseExceptions = False
    parser = get_args_parser()
    asked = parser.parse_args([*options, *flags])
    folder = None if asked.config_dir is None else Path(asked.config_dir).absolute()
    if folder is not None and not folder.is_dir():
        raise InputError(f"the folder {folder} is not there", option="--config-dir")
    _check_flags(asked)
    name = asked.config_name or _ROOT
    # A sweeper of a plugin may write into Hydra's folder: ours is empty, elsewhere, and gone when the run ends.
    with (
        tempfile.TemporaryDirectory(prefix="trtbuild-hydra-") as scratch,
        _program(folder, _root(asked.config_path), Path(scratch)) as program,
    ):
        if asked.help:
            program.app_help(config_name=name, args_parser=parser, args=asked)
        elif asked.hydra_help:
            program.hydra_help(config_name=name, args_parser=parser, args=asked)
        elif asked.cfg:
            program.show_cfg(name, asked.overrides, asked.cfg, asked.package, asked.resolve)
        elif asked.shell_completion:
            _complete(program, name, asked.overrides)
        elif asked.info:
            program.show_info(asked.info, config_name=name, overrides=asked.overrides)
        else:
            _compose(program, name, asked, task)


def _complete(program: Hydra, name: str, words: list[str]) -> None:
    """What Hydra says for a shell; of what may complete a word, only what no shell takes for more than a word.

    Bash expands candidates once more: `$(…)` as the name of a file, or as a value in one, would be run at a tab.
    """
    if not any(word.startswith("query=") for word in words):
        program.shell_completion(name, words)
        return
    told = io.StringIO()
    with redirect_stdout(told):
        program.shell_completion(name, words)
    plain = [word for word in told.getvalue().split() if _PLAIN.fullmatch(word)]
    sys.stdout.write("".join(f"{word}\n" for word in plain))


def _compose(program: Hydra, name: str, asked: argparse.Namespace, task: Callable[[DictConfig], None]) -> None:
    """One config to `task`, or all points to the launcher: where a flag or a file asks for that."""
    if not asked.multirun:
        mode = RunMode.RUN
        with suppress(HydraException):  # it is reported below, for a single run
            mode = program.config_loader.load_configuration(
                name, list(asked.overrides), RunMode.MULTIRUN, validate_sweep_overrides=False
            ).hydra.mode
        if mode is not RunMode.MULTIRUN:
            task(_apart_from_hydra(program.compose_config(name, asked.overrides, RunMode.RUN, True)))
            return
    program.multirun(name, task, [*asked.overrides, "hydra.mode=MULTIRUN"])


def _apart_from_hydra(composed: DictConfig) -> DictConfig:
    HydraConfig.instance().set_config(composed)  # for ${hydra:…}; it takes a copy
    with open_dict(composed):
        del composed["hydra"]
    return composed


def _check_flags(asked: argparse.Namespace) -> None:
    """Raises InputError for flags of Hydra's that make no sense together."""
    verbs = {
        "--run": asked.run,
        "--multirun": asked.multirun,
        "--cfg": asked.cfg,
        "--info": asked.info,
        "--shell-completion": asked.shell_completion,
    }
    named = [flag for flag, given in verbs.items() if given]
    if len(named) > 1:
        raise InputError(f"{' and '.join(named)} do not go together", hint="give one of them")
    if asked.resolve and not (asked.cfg or asked.help):
        raise InputError("--resolve goes with --cfg or --help alone")


def _root(path: str | None) -> str:
    """Where the root file is, as Hydra takes it. A package other than trtbuild's is refused by the gate."""
    if path is None or path == CONF:
        return CONF
    return path if "://" in path else f"file://{Path(path).absolute()}"
