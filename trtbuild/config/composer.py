"""Composes configs as Hydra does: one without Hydra's own node, and many with what they have in common made once.

Hydra takes a quarter of a second for each: it reads its own files as well, which are half of all, and merges every
node anew. Here files are read once, Hydra's own are left out, and of another choice of files just those nodes are
merged that these files are about.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.default_element import ResultDefault
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from trtbuild.config import schema
from trtbuild.config.config_files import WithoutHydra, remember

ROOTS = tuple(field.name for field in fields(schema.Config))


@dataclass(frozen=True)
class Check:
    """What makes plain values of what Hydra composed: of a whole config, or of some nodes of one."""

    whole: Callable[[DictConfig], schema.Config]
    nodes: Callable[[DictConfig], Mapping[str, Any]]


@dataclass(frozen=True)
class _Chosen:
    """What was composed of some files, Hydra's own aside; `config` is None where a value is interpolated."""

    own: DictConfig
    config: schema.Config | None


class Composer:
    """Composes as Hydra does for a job of a sweep, and once for all jobs that choose the same files."""

    def __init__(self, loader: Any, config: DictConfig, check: Check) -> None:
        self._loader, self._config, self._check = loader, config, check
        remember(loader)
        self._parser = OverridesParser.create(config_loader=loader)
        of_hydra = self._parser.parse_overrides(list(config.hydra.overrides.hydra))
        # A `hydra.searchpath` is looked up for each composition by Hydra, and once here.
        loader._process_config_searchpath(config.hydra.job.config_name, of_hydra, loader.repository)
        self._chosen: dict[tuple[str, ...], _Chosen] = {}
        self._files: list[ResultDefault] = []  # where no word chooses
        self._default: dict[str, str] = {}  # group -> what is chosen where no word chooses
        self._wholes: dict[tuple[str, ...], DictConfig] = {}
        self._by_hydra: dict[tuple[str, ...], DictConfig] = {}

    def whole(self, words: Sequence[str]) -> schema.Config:
        """The config of these words. Raises what Hydra raises."""
        choices, values = self._parse(words)
        if choices not in self._wholes:
            self._wholes[choices] = self._merged(*self._listed(choices))
        composed = copy.deepcopy(self._wholes[choices])
        ConfigLoaderImpl._apply_overrides_to_config(values, composed)  # after all files, as Hydra has it
        if has_references(composed):  # ${hydra:runtime.choices.quant} is read there
            HydraConfig.instance().set_config(self._by_hydra_of(choices))
        return self._check.whole(composed)

    def part(self, words: Sequence[str]) -> schema.Config | None:
        """The same, but None where anything is interpolated; looks at no node that the words are not about."""
        choices, values = self._parse(words)
        chosen = self._choose(choices)
        if chosen.config is None or not values:
            return chosen.config
        names = {value.key_or_group.partition(".")[0] for value in values}
        if not all(isinstance(chosen.own._get_node(name), DictConfig) for name in names):
            # A value of the root's own, or nothing that is there: the whole says what is wrong with that.
            return self.whole(words)
        nodes = OmegaConf.masked_copy(chosen.own, sorted(names))
        OmegaConf.set_struct(nodes, True)
        ConfigLoaderImpl._apply_overrides_to_config(values, nodes)
        return replace(chosen.config, **self._check.nodes(nodes))

    def _parse(self, words: Sequence[str]) -> tuple[tuple[str, ...], list[Override]]:
        """The words that choose files, other than those that are chosen anyway; and the overrides of values."""
        self._choose(())
        choices: list[str] = []
        values: list[Override] = []
        for word, override in zip(words, self._parser.parse_overrides(list(words)), strict=True):
            if not self._is_choice(override):
                values.append(override)
            elif self._default.get(override.key_or_group) != override.value():
                choices.append(word)
        return tuple(choices), values

    def _choose(self, choices: tuple[str, ...]) -> _Chosen:
        """What these words choose; only nodes that other files make than those that are chosen anyway are made anew."""
        if choices not in self._chosen:
            files, repository = self._listed(choices)
            if not choices:
                self._files = files
                own = self._merged(files, repository)
                config = None if has_references(own) else self._check.whole(own)
            else:
                own, config = self._changed(files, repository)
            self._chosen[choices] = _Chosen(own, config)
        return self._chosen[choices]

    def _listed(self, choices: tuple[str, ...]) -> tuple[list[ResultDefault], WithoutHydra]:
        """The files that make a config, in their order, but for Hydra's own: half of all, and the same everywhere."""
        repository = WithoutHydra(self._loader.repository)
        listed = create_defaults_list(
            repo=repository,
            config_name=self._config.hydra.job.config_name,
            overrides_list=self._parser.parse_overrides(list(choices)),
            prepend_hydra=False,
            skip_missing=False,
        )
        if repository.users_say or _about_hydra(listed.defaults):
            self._by_hydra_of(choices)  # the gate looks at what these files say of Hydra
        if not choices:
            self._default = {group: str(name) for group, name in listed.overrides.known_choices.items()}
        return listed.defaults, repository

    def _by_hydra_of(self, choices: tuple[str, ...]) -> DictConfig:
        if choices not in self._by_hydra:
            self._by_hydra[choices] = self._loader.load_sweep_config(self._config, list(choices))
        return self._by_hydra[choices]

    def _merged(self, files: list[ResultDefault], repository: WithoutHydra) -> DictConfig:
        made: DictConfig = self._loader._compose_config_from_defaults_list(defaults=files, repo=repository)
        OmegaConf.set_struct(made, True)
        return made

    def _changed(self, files: list[ResultDefault], repository: WithoutHydra) -> tuple[DictConfig, schema.Config | None]:
        """The config of `files`, from that where no word chooses and the nodes that differ from it.

        A node is made by the files that are about it alone, in their order; so where the others are the same, in the
        same order, it is the same node.
        """
        before = {(file.config_path, file.package): file for file in self._files}
        after = {(file.config_path, file.package): file for file in files}
        changed: set[str] = set()
        for place in before.keys() ^ after.keys():
            changed |= repository.nodes(before.get(place) or after[place])
        same = [place for place in before if place in after] == [place for place in after if place in before]
        base = self._chosen[()]
        if not same or base.config is None or not changed <= set(ROOTS):
            own = self._merged(files, repository)
            return own, None if has_references(own) else self._check.whole(own)
        made = self._merged([file for file in files if changed & repository.nodes(file)], repository)
        own = copy.copy(base.own)
        with open_dict(own):
            for name in changed:
                own._set_item_impl(name, made._get_node(name))
        nodes = OmegaConf.masked_copy(own, sorted(changed))
        return own, None if has_references(nodes) else replace(base.config, **self._check.nodes(nodes))

    def _is_choice(self, override: Override) -> bool:
        """As Hydra decides it: a choice of a file comes before any value."""
        is_group = self._loader.repository.group_exists(override.key_or_group)
        return bool(is_group) and not isinstance(override.value(), dict)


def once(loader: Any, name: str, words: Sequence[str]) -> DictConfig | None:
    """The config of these words, from the root file `name`, without Hydra's node: half of what Hydra reads is for that.

    None where the node matters: a file of the user's says something of Hydra, or a value may refer to it. Raises what
    Hydra raises.
    """
    loader.ensure_main_config_source_available()
    parsed = OverridesParser.create().parse_overrides(list(words))
    loader.validate_sweep_overrides_legal(overrides=parsed, run_mode=RunMode.RUN, from_shell=True)
    own = WithoutHydra(loader.repository)
    listed = create_defaults_list(
        repo=own, config_name=name, overrides_list=parsed, prepend_hydra=False, skip_missing=False
    )
    if own.users_say or _about_hydra(listed.defaults):
        return None
    made: DictConfig = loader._compose_config_from_defaults_list(defaults=listed.defaults, repo=own)
    OmegaConf.set_struct(made, True)
    ConfigLoaderImpl._apply_overrides_to_config(listed.config_overrides, made)
    return None if own.users_say or has_references(made) else made


def _about_hydra(files: Sequence[ResultDefault]) -> bool:
    """Whether a file is put into Hydra's node, by its header or by the defaults list that names it."""
    return any((file.package or "").partition(".")[0] == "hydra" for file in files)


def has_references(config: DictConfig) -> bool:
    """Whether any value is interpolated, those of Hydra's own node aside."""
    names = [str(name) for name in config if name != "hydra"]
    if any(OmegaConf.is_interpolation(config, name) for name in names):
        return True
    nodes = [config._get_node(name) for name in names]
    return any(_refers(OmegaConf.to_container(node, resolve=False)) for node in nodes if isinstance(node, DictConfig))


def _refers(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_refers(each) for each in value.values())
    if isinstance(value, list):
        return any(_refers(each) for each in value)
    return isinstance(value, str) and "${" in value
