"""Hydra's config files, each read once in a process: every composition of a sweep reads some forty of them again."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.default_element import GroupDefault, InputDefault, ResultDefault
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, open_dict

_OURS = "main"  # how Hydra calls the files that come with a program


class Remembered(CachingConfigRepository):
    """A repository that caches what it has read. It returns copies, as a composition may change them."""

    def __init__(self, delegate: IConfigRepository) -> None:
        super().__init__(delegate)
        self._there: dict[tuple[str, str], Any] = {}

    def __deepcopy__(self, _memo: dict[int, Any]) -> Remembered:
        return self  # a composition copies the repository, to read each file once

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Hydra's."""
        file = super().load_config(config_path)
        if file is None:
            return None
        return replace(
            file,
            config=copy.deepcopy(file.config),
            header=dict(file.header),
            defaults_list=copy.deepcopy(file.defaults_list),
        )

    def group_exists(self, config_path: str) -> bool:
        """Hydra's."""
        return bool(self._ask("group", config_path, super().group_exists))

    def config_exists(self, config_path: str) -> bool:
        """Hydra's."""
        return bool(self._ask("config", config_path, super().config_exists))

    def _ask(self, what: str, name: str, find: Any) -> Any:
        if (what, name) not in self._there:
            self._there[what, name] = find(name)
        return self._there[what, name]


def remember(loader: Any) -> None:
    """Let one of Hydra's config loaders read each file once. Idempotent."""
    if not isinstance(loader.repository, Remembered):
        loader.repository = Remembered(loader.repository)


class WithoutHydra(CachingConfigRepository):
    """The files of one composition, without what they say of Hydra itself; `users_say` is whether any but ours did."""

    def __init__(self, delegate: IConfigRepository) -> None:
        self.delegate, self.cache = delegate, {}  # not a copy, as Hydra makes one: nothing here changes it
        self.users_say = False

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Hydra's."""
        file = super().load_config(config_path)
        if file is None:
            return None
        count = len(file.defaults_list or ())
        if file.defaults_list:
            file.defaults_list[:] = [each for each in file.defaults_list if not _of_hydra(each)]
        said = len(file.defaults_list or ()) < count
        if isinstance(file.config, DictConfig) and "hydra" in file.config:
            said = True
            with open_dict(file.config):
                del file.config["hydra"]
        self.users_say |= said and file.provider != _OURS
        return file

    def nodes(self, file: ResultDefault) -> frozenset[str]:
        """The nodes of the config's root that a file is about."""
        if file.package:
            return frozenset({file.package.partition(".")[0]})
        loaded = self.load_config(str(file.config_path))
        assert loaded is not None  # noqa: S101  # it was listed, so it is there
        return frozenset(map(str, loaded.config)) - {"defaults"}


def _of_hydra(chosen: InputDefault) -> bool:
    return isinstance(chosen, GroupDefault) and (chosen.group or "").lstrip("/").startswith("hydra/")
