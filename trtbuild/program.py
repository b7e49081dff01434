"""Hydra's program around a config: composed once where there is nothing to it but options, and by Hydra's own main."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import hydra
from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, open_dict

CONF = "pkg://trtbuild.conf"
_VERSION = "1.3"  # whose ways Hydra keeps to
_ROOT = "config"  # the file that everything starts from


def one(words: Sequence[str], task: Callable[[DictConfig], None]) -> None:
    """Compose these overrides once, and give them to `task`. Raises what Hydra raises."""
    with _program() as program:
        composed = program.compose_config(_ROOT, list(words), RunMode.RUN)
        HydraConfig.instance().set_config(composed)  # for ${hydra:…}; it takes a copy
        with open_dict(composed):
            del composed["hydra"]
        task(composed)


def many(words: Sequence[str], task: TaskFunction) -> None:
    """Sweep over these overrides. Raises what Hydra raises."""
    with _program() as program:
        program.multirun(_ROOT, task, [*words, "hydra.mode=MULTIRUN"])


@contextmanager
def _program() -> Iterator[Hydra]:
    """What `hydra.main` makes, without its second composition of each config and its folder for each run."""
    version.setbase(_VERSION)
    try:
        yield Hydra.create_main_hydra2("trtbuild", create_config_search_path(CONF))
    finally:
        GlobalHydra.instance().clear()


def with_flags(words: Sequence[str], on_config: Callable[[DictConfig], None]) -> None:
    """As any program of Hydra's: it reads the flags, and composes twice, first to see whether a sweep is asked for."""
    argv = sys.argv
    # Hydra makes a folder for every run; ours is empty, elsewhere, and gone when the run ends.
    with tempfile.TemporaryDirectory(prefix="trtbuild-hydra-") as scratch:
        sys.argv = ["trtbuild", *words, f"hydra.run.dir={scratch}", f"hydra.sweep.dir={scratch}"]
        try:
            hydra.main(config_path=CONF, config_name=_ROOT, version_base=_VERSION)(on_config)()
        finally:
            sys.argv = argv
