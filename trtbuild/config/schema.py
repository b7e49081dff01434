"""What a config may say: every option with its type and its default, and no other module has defaults.

Hydra merges `conf/**.yaml` and the command line into these classes, so an unknown or mistyped option is
an error there. They are not frozen (OmegaConf would make them read-only): `resolve` freezes them into a
`Recipe`. The comments in `conf/` say what each option means; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from trtbuild.config.choices import (
    Activations,
    Arch,
    ContainerEngine,
    DriverPolicy,
    Dtype,
    Durability,
    Executor,
    Frontend,
    Gpus,
    HardwareCompatibility,
    KvCache,
    Method,
    Optimization,
    OutputFormat,
    Serve,
    Shapes,
    SharedWith,
    TargetKind,
    Trust,
    Verify,
    WeightFormat,
    WeightsPlace,
)
from trtbuild.config.sweep_schema import JobConf, SweepConf
from trtbuild.config.trtllm_options import TensorRtLlmOptions


@dataclass
class WheelConf:
    sha256: str = MISSING
    member: str = MISSING
    member_sha256: str = MISSING
    member_size: int = MISSING
    config: dict[str, Any] | None = None


@dataclass
class ModelConf:
    source: str = MISSING
    revision: str | None = None
    dtype: Dtype = Dtype.auto
    wheel: WheelConf | None = None


@dataclass
class QuantConf:
    weights: WeightFormat = WeightFormat.none
    activations: Activations = Activations.none
    method: Method = Method.rtn
    group_size: int | None = None
    symmetric: bool | None = None
    embedding: bool = True
    kv_cache: KvCache = KvCache.auto


@dataclass
class TargetConf:
    name: str = "auto"
    kind: TargetKind | None = None
    arch: Arch | None = None
    level: str | None = None
    gpu: str | None = None
    memory_gb: int | None = None
    compute_capability: str | None = None
    sm_count: int | None = None
    mig: str | None = None
    gpus: int | None = None
    driver: str | None = None
    cuda: str | None = None
    device: int | None = None
    source: str | None = None
    job: JobConf = field(default_factory=JobConf)


@dataclass
class FleetConf:
    name: str = MISSING
    driver: str | None = None
    cuda: str | None = None


@dataclass
class ProfileConf:
    # Whole numbers, or text such as 8k: OmegaConf 2.3 cannot merge a union, so `resolve` checks them.
    max_batch_size: Any = None
    max_input_len: Any = None
    max_seq_len: Any = None
    max_num_tokens: Any = None


@dataclass
class KeyConf:
    driver: DriverPolicy = DriverPolicy.branch


@dataclass
class ParallelConf:
    tp: int = 1
    pp: int = 1


@dataclass
class NetworkConf:
    frontend: Frontend = Frontend.auto


@dataclass
class CompilerConf:
    name: str = MISSING
    version: str = "locked"
    packages: dict[str, str] = field(default_factory=dict)
    locks: dict[str, str] = field(default_factory=dict)


@dataclass
class OnnxRuntimeConf(CompilerConf):
    accuracy_level: int = 4
    optimization: Optimization = Optimization.all


@dataclass
class TensorRtRtxConf(CompilerConf):
    shapes: Shapes = Shapes.dynamic
    portable: bool = False
    weight_streaming: bool = False


@dataclass
class TensorRtConf(CompilerConf):
    shapes: Shapes = Shapes.static
    weight_streaming: bool = False
    optimization_level: int = 3
    workspace_gb: float | None = None
    tactic_sources: str | None = None
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.none
    version_compatible: bool = False


@dataclass
class CalibrationConf(CompilerConf):
    """Of those in which ModelOpt measures scales."""

    calib_dataset: str | None = None
    calib_size: int | None = None
    calib_batch_size: int = 1
    calib_max_length: int = 512
    threads: int = 1


@dataclass
class AotInductorConf(CalibrationConf):
    weights: WeightsPlace = WeightsPlace.separate
    max_autotune: bool = False


@dataclass
class ModelOptConf(CalibrationConf):
    exclude_modules: list[str] = field(default_factory=list)


@dataclass
class TensorRtLlmConf(TensorRtLlmOptions, CompilerConf):
    """A group like the others; its options are in `trtllm_options`."""


@dataclass
class ExecutorConf:
    name: Executor = Executor.auto
    python: str | None = None
    timeout_minutes: float = 240.0
    memory_gb: float | None = None
    threads: int | None = None
    env: list[str] = field(default_factory=list)
    allow_lock: list[str] = field(default_factory=list)
    engine: ContainerEngine = ContainerEngine.auto
    gpus: Gpus = Gpus.auto
    network: bool = False
    engine_flags: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


@dataclass
class StoreConf:
    root: str | None = None
    durability: Durability = Durability.full
    verify: Verify = Verify.never
    shared_with: SharedWith | None = None
    also: list[str] = field(default_factory=list)
    team: str | None = None
    write: bool = False
    trust: Trust = Trust.require
    trusted: list[str] = field(default_factory=list)
    key: str | None = None
    heartbeat: float = 15.0
    patience: float = 20.0


@dataclass
class CheckConf:
    enabled: bool = True
    prompt: str = "Why is the sky blue?"
    max_tokens: int = 16
    timeout_minutes: float | None = None


@dataclass
class GenerateConf:
    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    raw: bool = False
    timeout_minutes: float | None = None


@dataclass
class Config:
    """The root. Each attribute that is a class above is a group or a node of its own in `conf/`."""

    model: ModelConf = MISSING
    quant: QuantConf = MISSING
    target: TargetConf = MISSING
    fleet: FleetConf = MISSING
    profile: ProfileConf = MISSING
    parallel: ParallelConf = field(default_factory=ParallelConf)
    network: NetworkConf = field(default_factory=NetworkConf)
    key: KeyConf = field(default_factory=KeyConf)
    compiler: CompilerConf = MISSING
    executor: ExecutorConf = MISSING
    store: StoreConf = MISSING
    check: CheckConf = MISSING
    sweep: SweepConf = MISSING
    generate: GenerateConf = field(default_factory=GenerateConf)
    prompt: str | None = None
    output: OutputFormat = OutputFormat.text
    out: str | None = None
    report: str | None = None
    refresh: bool = False
    until: str | None = None
    serve: Serve = Serve.none


#: group -> the schema that its YAML files start from (`defaults: [schema]`)
GROUPS: dict[str, type] = {
    "model": ModelConf,
    "quant": QuantConf,
    "target": TargetConf,
    "fleet": FleetConf,
    "profile": ProfileConf,
    "executor": ExecutorConf,
    "store": StoreConf,
    "check": CheckConf,
    "sweep": SweepConf,
}


#: the compilers' own schemas, `compiler/<name>_schema`
COMPILERS: dict[str, type[CompilerConf]] = {
    "onnxruntime": OnnxRuntimeConf,
    "tensorrt_rtx": TensorRtRtxConf,
    "tensorrt": TensorRtConf,
    "tensorrt_llm": TensorRtLlmConf,
    "aot_inductor": AotInductorConf,
    "modelopt": ModelOptConf,
}


def register(compilers: Iterable[str] = COMPILERS) -> None:
    """Make the schema known to Hydra, with the options of these compilers. Idempotent."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, conf in GROUPS.items():
        store.store(group=group, name="schema", node=conf)
    for name in compilers:
        store.store(group="compiler", name=f"{name}_schema", node=COMPILERS[name])
