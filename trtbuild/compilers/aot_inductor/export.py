"""From a module to a package: exported, compiled ahead of time, loaded again and compared with the module."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch._inductor import aoti_compile_and_package, config, cpu_vec_isa

from trtbuild.compilers.aot_inductor import manifest, package, package_loader
from trtbuild.compilers.aot_inductor.module import DecoderModule, cache_dtype
from trtbuild.compilers.aot_inductor.options import LEVELS
from trtbuild.compilers.aot_inductor.structure import SCALE, SCALES, Structure, WeightScheme
from trtbuild.errors import BuildError
from trtbuild.worker import Reporter

_SEED = 0
_MADE = re.compile(r"constant\d+")  # how the compiler calls its own
_PROMPT, _SLOTS = 5, 64  # tokens and slots of the example
#: How far logits may be off, as a share of their largest: bfloat16 has eight bits of each number, float16 eleven.
_TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
#: FP8 has four bits: where the code sums in another order, an input becomes the next code, layer after layer (0.11 was
#: seen, of 30 layers with made-up weights). Logits of other code are off by about all of the largest.
_TOLERANCE_FP8 = 0.3


@dataclass(frozen=True)
class CompiledPackage:
    """`compared` is the largest difference of logits, as a share of the largest; None where it cannot run here."""

    cuda: str | None
    cache_dtype: str
    compared: float | None
    scalars: Mapping[str, int]  # what the compiler made constants of itself
    seconds: Mapping[str, float]


def compile_to(
    path: Path,
    stage: Path,
    options: Mapping[str, Any],
    device: str,
    weights: Path | None,
    reporter: Reporter,
) -> CompiledPackage:
    """Compile to the package `path`, with what is written meanwhile in `stage`.

    The weights are made up, and not in the package; with `weights`, the folder of that step, they are its own, and in
    the package. Raises BuildError.
    """
    structure, scheme = Structure.read(options), WeightScheme.read(options)
    limits = options["profile.max_input_len"], options["profile.max_seq_len"]
    began = time.monotonic()
    module = DecoderModule(structure, scheme, device).eval()
    given = _made_up(module) if weights is None else package_loader.read(weights / manifest.WEIGHTS, device)
    module.load_state_dict(given)
    reporter.progress("exporting", 0, 1, "module")
    exported = _export(module, limits)
    exported_at = time.monotonic()
    reporter.progress("compiling", 0, 1, "module")
    settings = {name: value for name, value in _settings(options, weights is not None).items() if _has(name)}
    inside = str(stage / path.name)
    with torch.no_grad():
        built = aoti_compile_and_package(exported, package_path=inside, inductor_configs=settings)
    scalars = _scalars(package.wanted(Path(built)), module)
    package.settle(Path(built), path)
    compiled_at = time.monotonic()
    kept = {**given, **package_loader.scalars(scalars, device)} if weights is None else {}
    return CompiledPackage(
        cuda=torch.version.cuda if device == "cuda" else None,
        cache_dtype=str(cache_dtype(scheme.dtype, device)).removeprefix("torch."),
        compared=_compare(path, module, kept, limits) if _runs_here(options) else None,
        scalars=scalars,
        seconds={
            "export": round(exported_at - began, 1),
            "compile": round(compiled_at - exported_at, 1),
        },
    )


def _settings(options: Mapping[str, Any], embedded: bool) -> dict[str, Any]:
    """Of torch._inductor.config. Names of generated files are given, as those by hash would hold the folder's name."""
    settings: dict[str, Any] = {
        "aot_inductor.package_constants_in_so": embedded,
        "aot_inductor.model_name_for_generated_files": "engine",
        "aot_inductor.enable_line_tables": False,
        "aot_inductor.precompile_headers": False,  # each would be read once
        "cpp.dynamic_threads": True,  # else as many as there are here would be in the code
    }
    if options["target.kind"] == "cuda":
        # What runs on the CPU beside it is for any: no vectors.
        return settings | {"cpp.simdlen": 1, "max_autotune": options["compiler.max_autotune"]}
    bits = LEVELS[options["target.level"]]
    isa = {256: cpu_vec_isa.VecAVX2, 512: cpu_vec_isa.VecAVX512}[bits]()
    # Which there are is otherwise tried out on this CPU, and a newer one's engines could be built there alone.
    cpu_vec_isa.valid_vec_isa_list = lambda: [isa]
    return settings | {
        "cpp.simdlen": bits,
        "cpp.vec_isa_ok": True,
        "max_autotune": options["compiler.max_autotune"],
    }


def _scalars(wanted: Sequence[str], module: DecoderModule) -> dict[str, int]:
    """The code wants just the module's tensors, and the size of a group once for each of its 4-bit products on a CPU.

    Raises BuildError: the compiler puts into the code what it takes for a constant of the model's.
    """
    own = set(module.state_dict())
    made = {
        name: module.scheme.group_size or 0 for name in wanted if _MADE.fullmatch(name) and name not in own
    }
    odd = own ^ (set(wanted) - set(made))
    if odd or (made and (module.scheme.weights != "int4" or module.device != "cpu")):
        name = sorted(odd or made)[0]
        raise BuildError(f"the package wants other tensors than the module has, such as {name}")
    return made


def _has(setting: str) -> bool:
    """Whether this release of torch knows it: what comes later only saves time or bytes."""
    *groups, name = setting.split(".")
    return hasattr(reduce(getattr, groups, config), name)


def _export(module: DecoderModule, limits: tuple[int, int]) -> torch.export.ExportedProgram:
    tokens = torch.export.Dim("tokens", min=1, max=limits[0])
    slots = torch.export.Dim("slots", min=2, max=limits[1])
    example = _example(module, min(_PROMPT, limits[0]), min(_SLOTS, limits[1]))
    caches = [{1: slots}] * module.structure.layers
    dynamic = ({0: tokens}, {0: tokens}, caches, caches)
    with torch.no_grad():
        return torch.export.export(module, example, dynamic_shapes=dynamic)


def _example(module: DecoderModule, count: int, slots: int) -> tuple[Any, ...]:
    """What a call of the module takes."""
    s, device = module.structure, module.device
    ids = torch.arange(count, device=device) * 7 % s.vocab
    shape, dtype = (s.kv_heads, slots, s.head_dim), cache_dtype(module.scheme.dtype, device)
    keys, values = (
        [torch.zeros(shape, dtype=dtype, device=device) for _ in range(s.layers)] for _ in range(2)
    )
    return ids, torch.arange(count, device=device), keys, values


def _made_up(module: DecoderModule) -> dict[str, torch.Tensor]:
    """Weights of no model, of the size that a model's have: no two equal, as the compiler would see that."""
    random = torch.Generator(module.device).manual_seed(_SEED)
    made = {}
    for name, empty in module.state_dict().items():
        values = torch.empty_like(empty)
        if name == "rotary.table":
            values.normal_(1.0, 0.1, generator=random)
            values[0] = torch.logspace(0, -4, values.shape[1])
        elif name.endswith(".shares"):
            values.uniform_(0.5, 1.0, generator=random)
        elif name == SCALES:
            values.normal_(1.0, 0.1, generator=random)
            values[:, :SCALE] *= 1e-2
            values[:, SCALE:] *= 1e-3
        elif empty.dtype == torch.float8_e4m3fn:
            wide = torch.empty(empty.shape, device=empty.device).normal_(0.0, 30.0, generator=random)
            values = wide.to(empty.dtype)
        elif empty.dtype == torch.int8:
            values.random_(-127, 128, generator=random)
        elif empty.dtype.is_floating_point:
            around, spread = _typical(name)
            values.normal_(around, spread, generator=random)
        else:
            values.random_(generator=random)
        made[name] = values
    return made


def _typical(name: str) -> tuple[float, float]:
    """Mean and deviation of a tensor's values."""
    if name.endswith((".scales", ".groups")):
        return 3e-4, 3e-5
    return (1.0, 0.1) if "norm" in name else (0.0, 0.03)


def _runs_here(options: Mapping[str, Any]) -> bool:
    return options["target.kind"] == "cuda" or package_loader.level_refusal(options["target.level"]) is None


def _compare(
    path: Path, module: DecoderModule, given: Mapping[str, torch.Tensor], limits: tuple[int, int]
) -> float:
    """The package's logits beside the module's, for a prompt and what follows, as far as there is room. BuildError."""
    opened = package_loader.open_package(path)
    package_loader.give(opened, given)
    count, slots = min(_PROMPT, limits[0]), min(_SLOTS, limits[1])
    worst = 0.0
    mine, theirs = (_example(module, count, slots) for _ in range(2))
    with torch.no_grad():
        for at in range(count, min(count + 3, slots + 1)):
            expected = module(*mine)
            (found,) = opened.boxed_run([*theirs[:2], *theirs[2], *theirs[3]])
            off = (found - expected).abs().max() / expected.abs().max()
            worst = max(worst, float(off)) if torch.isfinite(off) else float("inf")
            token = expected.argmax()[None]
            place = torch.tensor([at], device=module.device)
            mine, theirs = (token, place, *mine[2:]), (token, place, *theirs[2:])
    most = _TOLERANCE_FP8 if module.scheme.weights == "fp8" else _TOLERANCE[module.scheme.dtype]
    if worst > most:
        raise BuildError(f"the package's logits are off by {worst:.2g} of the largest, beside the module's")
    return float(f"{worst:.2g}")
