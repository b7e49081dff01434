"""Config → recipe: the only place that reads files, the Hub and this machine's hardware for a plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trtbuild import targets
from trtbuild.compilers import registry
from trtbuild.compilers.base import Compiler
from trtbuild.config import choices, schema
from trtbuild.errors import InputError
from trtbuild.facts.recipe import SCHEMES, Profile, Quant, Recipe, Tools, Value, frozen
from trtbuild.networks.config import architectures
from trtbuild.planning import checkpoint
from trtbuild.planning.examine import examine
from trtbuild.planning.memo import Memo
from trtbuild.sources import Digester, Source
from trtbuild.sources.folder import content
from trtbuild.toolchains import builtin, lock, pythons
from trtbuild.toolchains.lock import Lock

MAX_NUMBER = 1e9  # of any option that counts


@dataclass(frozen=True)
class Resolved:
    """A recipe, and the source of the files that its model's identity names.

    `examine` checks the checkpoint's headers and small files: it returns notes, or raises InputError.
    """

    recipe: Recipe
    source: Source
    examine: Callable[[], tuple[str, ...]]


def resolve(config: schema.Config, digester: Digester, memory: Memo | None = None) -> Resolved:
    """The recipe of a config. Looks nothing up that is in `memory` already.

    Raises InputError if options contradict each other, or name something that does not exist.
    """
    once = (memory or Memo()).once
    _check_numbers(config)
    tools = once(
        "tools",
        (config.compiler, config.executor.python, config.executor.name),
        lambda: _tools(config, digester),
    )
    quant = _quant(config.quant)
    profile = _profile(config.profile)
    compiler = registry.COMPILERS[tools.name]
    wanted = target_request(config)
    kinds = compiler.hardware.kinds
    target = once("target", (wanted, sorted(kinds)), lambda: targets.resolve(wanted, kinds))
    source, described, model = once("model", config.model, lambda: checkpoint.identified_model(config.model, digester))
    frontend = "native"
    if compiler.models.networks:
        frontend = checkpoint.frontend(config.network.frontend.value, model.architecture, model.config)
        _check_length(profile, checkpoint.max_tokens(model, frontend))
        if frontend == "native":
            checkpoint.check_decoder(described)
        if compiler.models.structured and frontend == "native":
            model_config = once(
                "described", config.model, lambda: checkpoint.model_config(config.model, source, described)
            )
            model = replace(model, described=model_config)
    elif model.gguf and model.architecture not in (None, *architectures.GGUF_SUPPORTED):
        raise checkpoint.unsupported_error(
            model.architecture, architectures.GGUF_SUPPORTED, "name the same model as safetensors"
        )
    recipe = Recipe(
        model=model,
        quant=quant,
        target=target,
        profile=profile,
        tp=config.parallel.tp,
        pp=config.parallel.pp,
        frontend=frontend,
        tools=tools,
        driver_policy=config.key.driver.value,
    )
    rules = checkpoint.model_rules(compiler, frontend)

    def examined() -> tuple[str, ...]:
        question = (config.model, compiler.name, frontend)
        return once("examined", question, lambda: examine(source, rules))

    return Resolved(recipe, source, examined)


def target_request(config: schema.Config) -> targets.Asked:
    """The hardware that the config asks for, before anything is detected."""
    names = [f.name for f in fields(targets.Asked) if f.name != "fleet"]
    values = {name: getattr(config.target, name) for name in names}
    return targets.Asked(
        **{name: getattr(value, "value", value) for name, value in values.items()},
        fleet=targets.Fleet(config.fleet.name, config.fleet.driver, config.fleet.cuda),
    )


def _profile(conf: schema.ProfileConf) -> Profile:
    return Profile(**{f.name: _tokens(f"profile.{f.name}", getattr(conf, f.name)) for f in fields(Profile)})


def _check_length(profile: Profile, context: int | None) -> None:
    """Raises InputError if the profile has more tokens than the model has positions (`context`, None if unknown)."""
    if context is not None and (profile.max_seq_len or 0) > context:
        raise InputError(
            f"{profile.max_seq_len} is beyond the model's context of {context} tokens",
            option="profile.max_seq_len",
            hint=f"choose at most {context}, or leave it out",
        )


def _tokens(option: str, value: Any) -> int | None:
    """A count above 0, or None: 8192, "8192", or "8k" (of 1024). Raises InputError."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,12})([kK]?)", value)):
        value = int(match[1]) * (1024 if match[2] else 1)
    if value is not None and type(value) is not int:
        raise InputError(f"{value!r} is not a whole number", option=option, hint="write 8192, or 8k for 8 x 1024")
    if value is not None and value <= 0:
        raise InputError(f"{value} is not above 0", option=option)
    return value


def _quant(conf: schema.QuantConf) -> Quant:
    parts = (conf.weights.value, conf.activations.value, conf.method.value, conf.kv_cache.value)
    return Quant(
        scheme=SCHEMES.get(parts, "/".join(parts)),
        weights=parts[0],
        activations=parts[1],
        method=parts[2],
        kv_cache=parts[3],
        group_size=conf.group_size,
        symmetric=conf.symmetric,
        embedding=conf.embedding,
    )


def _tools(config: schema.Config, digester: Digester) -> Tools:
    conf = config.compiler
    compiler = registry.COMPILERS.get(conf.name)
    if compiler is None:
        raise InputError(
            f"there is no compiler {conf.name!r}",
            option="compiler.name",
            hint=f"there are: {', '.join(sorted(registry.COMPILERS))}",
        )
    locks = _locks(conf, compiler)
    locked: dict[str, str] = {}
    for locked_by in locks.values():
        locked |= locked_by.versions
    asked = dict(conf.packages)
    if conf.version == "installed":
        locks, packages = {}, _installed(config, compiler, [*locked, *asked, compiler.needs.package])
    else:
        if conf.version != "locked":
            asked[compiler.needs.package] = conf.version
        elif not locks:
            raise InputError(
                f"compiler={conf.name} has no lock, and its release is not given",
                option="compiler.version",
                hint="give it: compiler.version=…, or take what is there: compiler.version=installed",
            )
        # A lock does not say what a step runs with if the config asks for other versions.
        locks = {
            name: each
            for name, each in locks.items()
            if name in compiler.needs.separate or each.versions == {**each.versions, **_of(asked, each)}
        }
        packages = {**locked, **asked}
    image = _image(config, compiler)
    if image is not None:  # it holds the compiler; the packages that remain are those of the steps before it
        packages = {name: version for name, version in packages.items() if name in locked}
    return Tools(
        conf.name,
        frozen(packages),
        frozen(_options(conf, compiler, digester)),
        MappingProxyType(dict(sorted(locks.items()))),
        image,
    )


def _options(conf: schema.CompilerConf, compiler: Compiler, digester: Digester) -> dict[str, Value]:
    """The compiler's own options by their dotted names. Folders are replaced by the digests of their contents."""
    common = {f.name for f in fields(schema.CompilerConf)} | {"image"}
    options: dict[str, Value] = {}
    for item in fields(conf):
        if item.name in common:
            continue
        option, value = f"compiler.{item.name}", getattr(conf, item.name)
        if option in compiler.folders and value:
            paths = value if isinstance(value, list) else [value]
            digests = tuple(content(path, option, digester, file=compiler.folders[option]) for path in paths)
            options[option] = digests if isinstance(value, list) else digests[0]
        else:
            options[option] = tuple(value) if isinstance(value, list) else getattr(value, "value", value)
    return options


def _image(config: schema.Config, compiler: Compiler) -> str | None:
    """The digest of the image that the compiler's steps run in; None unless executor=container. Raises InputError."""
    if config.executor.name is not choices.Executor.container:
        return None
    if not compiler.needs.image:
        there = ", ".join(name for name, each in registry.COMPILERS.items() if each.needs.image)
        raise InputError(
            f"compiler={compiler.name} runs in no container",
            option="executor=container",
            hint=f"leave executor out: its toolchains are installed by themselves; {there} runs in one",
        )
    image = str(getattr(config.compiler, "image", None))
    digest = re.search(r"(?:^|@)(sha256:[0-9a-f]{64})$", image)
    if digest is None:
        raise InputError(
            f"{image} says no digest, and what a tag stands for can change",
            option="compiler.image",
            hint=f"pin it, as compiler.image={image.partition('@')[0]}@sha256:…; the digest is what "
            f"`docker buildx imagetools inspect {image.partition('@')[0]}` shows",
        )
    return digest[1]


def _of(asked: Mapping[str, str], lock: Lock) -> dict[str, str]:
    return {name: version for name, version in asked.items() if name in lock.versions}


def _locks(conf: schema.CompilerConf, compiler: Compiler) -> dict[str, Lock]:
    """The lock of each of the compiler's toolchains: from `compiler.locks`, or the one shipped with trtbuild."""
    for name in conf.locks:
        if name not in compiler.needs.toolchains:
            raise InputError(
                f"compiler={compiler.name} has no toolchain {name!r}",
                option=f"compiler.locks.{name}",
                hint=f"there are: {', '.join(compiler.needs.toolchains)}",
            )
    return {
        name: _own_lock(name, conf.locks[name]) if name in conf.locks else builtin.load(name)
        for name in compiler.needs.toolchains
    }


def _own_lock(name: str, path: str) -> Lock:
    option = f"compiler.locks.{name}"
    own = lock.read(Path(path).expanduser(), option)
    lacking = [package for package in builtin.load(name).chosen if package not in own.packages]
    if lacking:
        raise InputError(
            f"{path} does not lock {', '.join(lacking)}, which the toolchain {name} is made for",
            option=option,
            hint=f"`trtbuild toolchain ls {name}` shows what it holds; add them to the pins, and lock those again",
        )
    return own


def _installed(config: schema.Config, compiler: Compiler, names: list[str]) -> dict[str, str]:
    versions = dict(pythons.python(config.executor.python, names).versions)
    if compiler.needs.package not in versions:
        raise InputError(
            f"{compiler.needs.package} is not installed",
            option="compiler.version=installed",
            hint=f"pip install 'trtbuild[{compiler.needs.extra}]'",
        )
    return versions


def _check_numbers(config: schema.Config) -> None:
    positive: dict[str, float | None] = {
        "parallel.tp": config.parallel.tp,
        "parallel.pp": config.parallel.pp,
        "quant.group_size": config.quant.group_size,
        "executor.timeout_minutes": config.executor.timeout_minutes,
        "executor.memory_gb": config.executor.memory_gb,
        "executor.threads": config.executor.threads,
        "generate.max_tokens": config.generate.max_tokens,
        "generate.timeout_minutes": config.generate.timeout_minutes,
        "check.max_tokens": config.check.max_tokens,
        "check.timeout_minutes": config.check.timeout_minutes,
        "store.heartbeat": config.store.heartbeat,
        "store.patience": config.store.patience,
    }
    for option, value in positive.items():
        if value is not None and not value > 0:  # nor is NaN
            raise InputError(f"{value} is not above 0", option=option)
        if value is not None and value > MAX_NUMBER:
            raise InputError(f"{value} is more than can be meant", option=option)
