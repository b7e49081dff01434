"""Hydra's program around a config: composed once where there is little but options, and else by Hydra's own main."""

from __future__ import annotations

import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import hydra
from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from trtbuild import composer, yaml_files
from trtbuild.config_files import remember

CONF = "pkg://trtbuild.conf"
_VERSION = "1.3"  # whose ways Hydra keeps to
_ROOT = "config"  # the file that everything starts from
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
        _by_hydra(words, task)
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
        _by_hydra(words, task)
        return
    HydraConfig.instance().set_config(composed)  # for ${hydra:…}; it takes a copy
    with open_dict(composed):
        del composed["hydra"]
    task(composed)


@dataclass
class _Asked:
    """A command line of options, with the flags that most command lines have."""

    options: list[str]
    several: bool = False  # -m
    folder: Path | None = None  # --config-dir


def _asked(words: Sequence[str]) -> _Asked | None:
    """None where there are other flags, or options of Hydra's own."""
    found, rest = _Asked([]), iter(words)
    for word in rest:
        name, _, value = word.partition("=")
        if word in ("-m", "--multirun"):
            found.several = True
        elif name in ("--config-dir", "-cd") and found.folder is None:
            folder = value or next(rest, "")
            if not folder or not Path(folder).is_dir():
                return None  # Hydra says what is wrong with it
            found.folder = Path(folder).absolute()
        elif word.startswith("-") or re.match(r"[+~]*hydra\b", word):
            return None
        else:
            found.options.append(word)
    return found


def _apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options, and flags with their words: Hydra's parser wants all options in one place, and no flag between them."""
    options: list[str] = []
    flags: list[str] = []
    for before, word in pairwise(("", *words)):
        is_option = not word.startswith("-") and ("=" in word or word.startswith("~"))
        (options if is_option and before not in _TAKE_A_WORD else flags).append(word)
    return options, flags


@contextmanager
def _program(folder: Path | None) -> Iterator[Hydra]:
    version.setbase(_VERSION)
    path = create_config_search_path(CONF)
    if folder is not None:
        path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    try:
        yield Hydra.create_main_hydra2("trtbuild", path)
    finally:
        GlobalHydra.instance().clear()


def _by_hydra(words: Sequence[str], task: Callable[[DictConfig], None]) -> None:
    argv, (options, flags) = sys.argv, _apart(words)
    # Hydra's words go through a logger: a reader that has gone is no news to tell.
    logging.raiseExceptions = False
    # Hydra makes a folder for every run; ours is empty, elsewhere, and gone when the run ends.
    with tempfile.TemporaryDirectory(prefix="trtbuild-hydra-") as scratch:
        folders = (f"hydra.run.dir={scratch}", f"hydra.sweep.dir={scratch}")
        sys.argv = ["trtbuild", *options, *folders, *flags]
        try:
            hydra.main(config_path=CONF, config_name=_ROOT, version_base=_VERSION)(task)()
        finally:
            sys.argv = argv
