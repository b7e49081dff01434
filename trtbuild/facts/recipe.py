"""A Recipe: everything that decides what is built, resolved to facts and frozen."""

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
    """A checkpoint by its content. `identity` is the sha256 over its files (see `trtbuild.sources`)."""

    identity: str
    label: str  # for people: shown and filtered on, never in a key
    origin: str  # for provenance: where these bytes were taken from this time
    architecture: (
        str | None
    )  # as in config.json or the GGUF's header; None where not known before the download
    gguf: bool
    bytes: int
    dtype: str  # as asked: auto, float32, …
    context: int | None = None  # positions of the model, in tokens; None where not known before the download
    files: tuple[tuple[str, int, str], ...] = ()  # (path, bytes, sha256), which `identity` is made of
    pins: Mapping[str, Scalar] | None = None  # of a wheel: what `origin` alone does not say
    config: Mapping[str, Any] | None = None  # the parsed config.json, read-only; None for GGUF
    #: `config`, or what says the same of a GGUF, where the compiler asks and it is known before the download
    described: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Quant:
    """How weights, activations and the KV cache are stored; `scheme` is the preset's name, if it is one."""

    scheme: str
    weights: str
    activations: str
    method: str
    group_size: int | None
    symmetric: bool | None  # None, as for group_size: what the compiler does best
    embedding: bool
    kv_cache: str


@dataclass(frozen=True)
class Profile:
    max_batch_size: int | None
    max_input_len: int | None
    max_seq_len: int | None
    max_num_tokens: int | None


@dataclass(frozen=True)
class Tools:
    """A compiler, its toolchains, the packages that its results depend on, and its own options."""

    name: str
    packages: Mapping[str, str]  # package -> exact version, the compiler's own included
    options: Mapping[str, Value]  # dotted option -> value
    #: toolchain -> its lock; one that is not here was asked for in other versions, which no lock has
    locks: Mapping[str, Lock] = field(default_factory=dict)
    #: sha256:… of the container image that holds the compiler, where steps run in it: then it stands for packages
    image: str | None = None


@dataclass(frozen=True)
class Recipe:
    model: Model
    quant: Quant
    target: Target
    profile: Profile
    tp: int
    pp: int
    frontend: str  # native or genai
    tools: Tools
    driver_policy: DriverPolicy = "branch"  # how much of the driver's release a GPU engine's key holds
