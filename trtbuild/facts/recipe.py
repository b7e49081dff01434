"""A recipe: everything that the result of a build depends on, resolved and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from trtbuild.targets import DriverPolicy, Target
from trtbuild.toolchains.lock import Lock

Scalar: TypeAlias = str | int | float | bool | None
Value: TypeAlias = Scalar | tuple["Value", ...]

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

V = TypeVar("V", bound=Value)


def frozen(values: Mapping[str, V]) -> Mapping[str, V]:
    """A read-only copy, sorted by name."""
    return MappingProxyType(dict(sorted(values.items())))


@dataclass(frozen=True)
class Model:
    """A checkpoint, named by its content. `identity` is the SHA-256 over its files (see `trtbuild.sources`)."""

    identity: str
    label: str  # for people: shown and filtered on, never in a key
    origin: str  # for provenance: where the bytes came from this time
    #: from config.json or the GGUF's header; None if unknown before the download
    architecture: str | None
    gguf: bool
    bytes: int
    dtype: str  # as in the config: auto, float32, …
    context: int | None = None  # positions of the model, in tokens; None if unknown before the download
    files: tuple[tuple[str, int, str], ...] = ()  # (path, bytes, SHA-256) of which `identity` is made
    pins: Mapping[str, Scalar] | None = None  # of a wheel: what `origin` alone does not say
    config: Mapping[str, Any] | None = None  # the parsed config.json, read-only; None for GGUF
    #: `config`, or the same from a GGUF's header; None if the compiler needs none or it is unknown before the download
    described: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Quant:
    """How weights, activations and the KV cache are stored. `scheme` is the name of the preset, if it is one."""

    scheme: str
    weights: str
    activations: str
    method: str
    group_size: int | None
    symmetric: bool | None  # None, also of group_size: the compiler's default
    embedding: bool
    kv_cache: str


@dataclass(frozen=True)
class Profile:
    """The limits of an engine's inputs, in sequences and tokens; None is the model's or the compiler's own limit."""

    max_batch_size: int | None
    max_input_len: int | None
    max_seq_len: int | None
    max_num_tokens: int | None


@dataclass(frozen=True)
class Tools:
    """A compiler with its toolchains, its own options, and the packages that its results depend on."""

    name: str
    packages: Mapping[str, str]  # package -> exact version, the compiler's own included
    options: Mapping[str, Value]  # dotted option -> value
    #: toolchain -> its lock; without those that the config asks for in other versions, as no lock has these
    locks: Mapping[str, Lock] = field(default_factory=dict)
    #: sha256:… of the container image that steps run in; it stands for the packages in it
    image: str | None = None


@dataclass(frozen=True)
class Recipe:
    """All facts of one build. Equal recipes have equal keys."""

    model: Model
    quant: Quant
    target: Target
    profile: Profile
    tp: int
    pp: int
    frontend: str  # native or genai
    tools: Tools
    driver_policy: DriverPolicy = "branch"  # how much of the driver's release a GPU engine's key holds
