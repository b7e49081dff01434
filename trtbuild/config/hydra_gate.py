"""What a config may say to Hydra itself: a short list; the rest is refused before Hydra acts upon it.

Hydra calls what a config names as `_target_` of a callback, a launcher or a sweeper, and what `class` or `()` names in
its logging; it sets environment variables, makes folders, and imports packages that a `pkg://` names. A config is
data: trtbuild composes through `Gate`, the one loader of all its commands, which looks at Hydra's node first. There
are two exceptions: the sweeper of an installed plugin, if the command line names it, and its options there.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from trtbuild.errors import InputError

CONF = "pkg://trtbuild.conf"
PLUGINS = "hydra_plugins"
LAUNCHER = f"{PLUGINS}.trtbuild.AllAtOnce"
SWEEPER = f"{PLUGINS}.trtbuild.Products"
_SHIPPED = (CONF, "pkg://hydra.conf", "structured://")
_BASIC = "hydra._internal.core_plugins.basic_"  # what Hydra's own root has, where no file of ours is read
_CALLED = "a config is data: Hydra would call what it names"
_WRITES = "trtbuild writes no folder for Hydra"
_LEAVE_OUT = "leave it out of the command line and of the config folder's files"
#: Nodes that keep what Hydra ships, and the reason: `run` and `sweep` are in one file.
_KEPT = {
    "run": _WRITES,
    "sweep": _WRITES,
    "help": "the words of --help are trtbuild's",
    "hydra_help": "the words of --hydra-help are Hydra's",
}
_OUTPUT = ("run", "sweep")
_LOGGINGS = ("none", "disabled", "default", "stdout", "hydra_debug")
#: Options of plugins that name a function, which the plugin imports and calls.
_FUNCTIONS = frozenset({"custom_search_space"})
#: What may be anything: it is looked at, and nothing is called, written or imported for it.
_FREE = frozenset({"mode", "verbose", "searchpath", "overrides", "runtime"})
_LOOKED_AT = _FREE | {
    *_KEPT,
    "callbacks",
    "launcher",
    "sweeper",
    "job",
    "job_logging",
    "hydra_logging",
    "output_subdir",
}
_FREE_OF_JOB = frozenset({"name", "override_dirname", "id", "num", "config_name", "config"})


class _Places(ConfigRepository):
    """The files of a search path that are in plain folders, or came with trtbuild and Hydra."""

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Hydra's: a place that is a package is imported."""
        for place in config_search_path.get_path():
            path = str(place.path)
            if path not in _SHIPPED and "://" in path.removeprefix("file://"):
                raise InputError(
                    f"{path} is no folder: Hydra would import it",
                    option="hydra.searchpath" if "searchpath" in str(place.provider) else "--config-path",
                    hint="name a folder: file:///path, or --config-dir /path",
                )
        super().initialize_sources(config_search_path)

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Hydra's."""
        return super().load_config(_inside(config_path))

    def group_exists(self, config_path: str) -> bool:
        """Hydra's."""
        return super().group_exists(_inside(config_path))

    def config_exists(self, config_path: str) -> bool:
        """Hydra's."""
        return super().config_exists(_inside(config_path))

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG) -> list[str]:
        """Hydra's."""
        return super().get_group_options(_inside(group_name), results_filter)


def _inside(path: str) -> str:
    """A file's path in a config folder. Raises InputError if it leads out of the folder."""
    if "://" in path or ".." in path.split("/") or path.startswith("//"):
        raise InputError(
            f"{path} is no file of a config folder",
            option="defaults",
            hint="files are named as group/name, below the folder that --config-dir names",
        )
    return path


class Gate(ConfigLoaderImpl):
    """Composes as Hydra does. Raises InputError if a config sets more of Hydra's own options than it may.

    `scratch` is a folder that is gone afterwards, for a plugin that writes where Hydra says.
    """

    def __init__(self, path: ConfigSearchPath, scratch: Path | None = None) -> None:
        super().__init__(path)
        self.repository = _Places(path)
        self._scratch = scratch

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Hydra's. Raises InputError as well."""
        try:
            made = super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        except KeyError as missing:  # a variable that `env_copy` names, read by Hydra as it composes
            raise _refused("job.env_copy", f"{missing} would be copied to all that it starts") from None
        said = OmegaConf.to_container(made.hydra, resolve=False)
        assert isinstance(said, dict)  # noqa: S101  # it is Hydra's own structured node
        self._check({str(name): value for name, value in said.items()}, overrides, config_name is None)
        if self._scratch is not None:
            with open_dict(made.hydra):
                made.hydra.run.dir = made.hydra.sweep.dir = str(self._scratch)
        return made

    def _check(self, said: Mapping[str, Any], words: Sequence[str], bare: bool) -> None:
        """`bare` is Hydra's own config, without a root file: it is for showing alone."""
        for name in said.get("callbacks") or {}:
            raise _refused(f"callbacks.{name}", _CALLED)
        _check_launcher(said.get("launcher"), bare)
        _check_sweeper(said.get("sweeper"), words, bare)
        _check_job(said.get("job") or {})
        for name, why in _KEPT.items():
            if (where := _differing(said.get(name), self._kept(name))) is not None:
                raise _refused(f"{name}{where}", why)
        for name in ("job_logging", "hydra_logging"):
            if all(said.get(name) != self._shipped(f"{name}/{each}") for each in _LOGGINGS):
                raise _refused(name, "logging calls what `class` and `()` name, and writes files")
        if said.get("output_subdir") not in (None, ".hydra"):
            raise _refused("output_subdir", _WRITES)
        for name, value in said.items():
            if name not in _LOOKED_AT and value:
                raise _refused(name, "trtbuild does not know it")

    def _kept(self, name: str) -> Any:
        if name in _OUTPUT:
            return self._shipped("output/default")[name]
        return self._shipped(f"{name}/default")

    def _shipped(self, name: str) -> Any:
        """What a file that came with Hydra says, without what names its package."""
        shipped = self.repository.load_config(f"hydra/{name}")
        if shipped is None or shipped.provider != "hydra":
            return None
        said = OmegaConf.to_container(shipped.config, resolve=False)
        return said.get("hydra", said) if isinstance(said, dict) else said


def _check_launcher(value: Any, bare: bool) -> None:
    target = value.get("_target_") if isinstance(value, dict) else value
    if value != {"_target_": LAUNCHER} and not (bare and str(target).startswith(_BASIC)):
        raise _refused(
            "launcher",
            f"points are launched by trtbuild alone, and {target} is named: {_CALLED}",
            "say `override hydra/launcher: trtbuild`, or leave it out; sweep.on chooses where points are built",
        )


def _differing(value: Any, kept: Any) -> str | None:
    """The `.name` of each field whose value differs from the shipped one. A field without a value does not count."""
    if not isinstance(value, dict) or not isinstance(kept, dict):
        return None if value == kept else ""
    for name in value:
        if value[name] not in (kept.get(name, MISSING), MISSING):
            return f".{name}"
    return None


def _check_job(said: Mapping[str, Any]) -> None:
    for name, value in said.items():
        if name in ("env_set", "env_copy") and value:
            raise _refused(f"job.{name}", "it would set variables of this process and of all that it starts")
        if name == "chdir" and value:
            raise _refused("job.chdir", "paths are those of the folder that trtbuild was started in")
        if name not in _FREE_OF_JOB and value:
            raise _refused(f"job.{name}", "trtbuild does not know it")


def _check_sweeper(value: Any, words: Sequence[str], bare: bool) -> None:
    said = value if isinstance(value, dict) else {}
    target = str(said.get("_target_"))
    if target == SWEEPER:
        for name in said:
            if name not in ("_target_", "max_batch_size", "params"):
                raise _refused(f"sweeper.{name}", "trtbuild's sweeper takes params and max_batch_size")
        if any(_targets(said.get("params"))):
            raise _refused("sweeper.params", _CALLED)
        return
    if bare and target.startswith(_BASIC):
        return
    registered = _registered().get(target) if target.startswith(f"{PLUGINS}.") else None
    if registered is None or _chosen(words) is None:
        raise _refused(
            "sweeper",
            f"{target} is not trtbuild's sweeper: {_CALLED}",
            "a sweeper that was installed as a plugin of Hydra's is named on the command line: hydra/sweeper=optuna",
        )
    _check_plugin(said, registered, words)


def _check_plugin(said: Mapping[str, Any], registered: Mapping[str, Any], words: Sequence[str]) -> None:
    """What differs from what a plugin registered was typed, and calls nothing but what plugins registered."""
    known = {target for each in _nodes() for target in _targets(each)}
    for target in _targets(said):
        if target not in known:
            raise _refused("sweeper", f"{target} is not what an installed plugin registered: {_CALLED}")
    typed = [word.lstrip("+~").partition("=")[0].replace("/", ".") for word in words]
    for name, value in said.items():
        if value == registered.get(name, _NOTHING):
            continue
        if name in _FUNCTIONS:
            raise _refused(f"sweeper.{name}", _CALLED)
        dotted = f"hydra.sweeper.{name}"
        if name != "_target_" and not any(word == dotted or word.startswith(f"{dotted}.") for word in typed):
            raise _refused(f"sweeper.{name}", "a file says it, of another's sweeper", "say it on the command line")


_NOTHING = object()


def _targets(value: Any) -> Iterator[str]:
    """All that `_target_` names in a value."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield str(value["_target_"])
        for each in value.values():
            yield from _targets(each)
    elif isinstance(value, list):
        for each in value:
            yield from _targets(each)


def _nodes() -> Iterator[Any]:
    """Configs that installed plugins registered, with trtbuild's own."""

    def walk(value: Any) -> Iterator[Any]:
        for each in value.values() if isinstance(value, dict) else ():
            if isinstance(each, dict):
                yield from walk(each)
            else:
                yield OmegaConf.to_container(each.node, resolve=False)

    yield from walk(ConfigStore.instance().repo.get("hydra", {}))


def _registered() -> dict[str, dict[str, Any]]:
    """The sweepers that plugins registered, by their class."""
    listed = ConfigStore.instance().repo.get("hydra", {}).get("sweeper", {})
    nodes = [OmegaConf.to_container(each.node, resolve=False) for each in listed.values() if hasattr(each, "node")]
    return {str(node.get("_target_")): dict(node) for node in nodes if isinstance(node, dict)}  # type: ignore[arg-type]


def _refused(name: str, why: str, hint: str = _LEAVE_OUT) -> InputError:
    return InputError(f"a config may not set this: {why}", option=f"hydra.{name}", hint=hint)


def _chosen(words: Sequence[str]) -> str | None:
    """The sweeper that a command line names, where it is not trtbuild's."""
    names = [word.partition("=")[2] for word in words if word.lstrip("+").startswith("hydra/sweeper=")]
    return names[-1] if names and names[-1] != "trtbuild" else None


def take_plugins(words: Sequence[str]) -> None:
    """Let Hydra know the plugins that these words ask for: it would import all that lies in a package `hydra_plugins`.

    Raises InputError where one lies in the working directory.
    """
    if PLUGINS not in sys.modules:
        nothing = types.ModuleType(PLUGINS)
        nothing.__path__ = []
        sys.modules[PLUGINS] = nothing
        try:
            Plugins.instance()
        finally:
            del sys.modules[PLUGINS]
    if _chosen(words) is None or _taken:
        return
    package = importlib.import_module(PLUGINS)
    here = Path.cwd()
    if any(Path(each).is_dir() and Path(each).resolve().parent == here for each in package.__path__):
        raise InputError(
            f"a folder {PLUGINS} lies in the working directory, and Hydra would run what is in it",
            option=f"hydra/sweeper={_chosen(words)}",
            hint="install the plugin with pip, or go to another folder",
        )
    Plugins.instance()._initialize()
    _taken.append(True)


_taken: list[bool] = []
