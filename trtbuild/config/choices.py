"""The values that an option may have, where they are a few words; `schema` has the options."""

from __future__ import annotations

from enum import Enum


class Dtype(Enum):
    auto = "auto"
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class WeightFormat(Enum):
    none = "none"
    int8 = "int8"
    int4 = "int4"
    fp8 = "fp8"
    nvfp4 = "nvfp4"


class WeightsPlace(Enum):
    separate = "separate"
    embedded = "embedded"


class Activations(Enum):
    none = "none"
    int8 = "int8"
    fp8 = "fp8"
    nvfp4 = "nvfp4"


class Method(Enum):
    rtn = "rtn"
    awq = "awq"
    gptq = "gptq"
    smoothquant = "smoothquant"
    minmax = "minmax"
    rowwise = "rowwise"


class KvCache(Enum):
    auto = "auto"
    int8 = "int8"
    fp8 = "fp8"
    nvfp4 = "nvfp4"


class Frontend(Enum):
    auto = "auto"
    native = "native"
    genai = "genai"


class Optimization(Enum):
    none = "none"
    basic = "basic"
    extended = "extended"
    all = "all"


class Executor(Enum):
    auto = "auto"
    managed = "managed"
    process = "process"
    container = "container"


class ContainerEngine(Enum):
    auto = "auto"
    docker = "docker"
    podman = "podman"
    nerdctl = "nerdctl"


class Gpus(Enum):
    auto = "auto"
    runtime = "runtime"
    cdi = "cdi"
    none = "none"


class Shapes(Enum):
    dynamic = "dynamic"
    phases = "phases"
    static = "static"


class HardwareCompatibility(Enum):
    none = "none"
    ampere_plus = "ampere_plus"
    same_compute_capability = "same_compute_capability"


class TargetKind(Enum):
    cpu = "cpu"
    cuda = "cuda"


class Arch(Enum):
    x86_64 = "x86_64"
    aarch64 = "aarch64"


class DriverPolicy(Enum):
    branch = "branch"
    exact = "exact"
    ignore = "ignore"


class OutputFormat(Enum):
    text = "text"
    json = "json"


class Trust(Enum):
    require = "require"
    warn = "warn"
    off = "off"


class Serve(Enum):
    none = "none"
    trtllm = "trtllm"
    triton = "triton"
    vllm = "vllm"
    sglang = "sglang"


class Durability(Enum):
    full = "full"
    fast = "fast"


class SharedWith(Enum):
    nobody = "nobody"
    group = "group"


class Verify(Enum):
    always = "always"
    sample = "sample"
    never = "never"
