"""Exports a module, compiles it ahead of time to a package, loads that again, and compares it with the module."""

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
_OWN_CONSTANT = re.compile(r"constant\d+")  # how the compiler names its own constants
_PROMPT, _SLOTS = 5, 64  # tokens and cache slots of the example
#: Allowed difference of logits, relative to the largest: bfloat16 has eight significant bits, float16 eleven.
_TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
#: FP8 has four significant bits: if the code sums in another order, an input rounds to the next code, layer after layer
#: (0.11 was seen, with 30 layers and random weights). Wrong code is off by about as much as the largest logit.
_TOLERANCE_FP8 = 0.3


@dataclass(frozen=True)
class CompiledPackage:
    """`compared` is the largest difference of logits, relative to the largest logit; None if it cannot run here."""

    cuda: str | None
    cache_dtype: str
    compared: float | None
    scalars: Mapping[str, int]  # the compiler's own constants
    seconds: Mapping[str, float]


def compile_to(
    path: Path,
    stage: Path,
    options: Mapping[str, Any],
    device: str,
    weights: Path | None,
    reporter: Reporter,
) -> CompiledPackage:
    """Compile to the package `path`; temporary files go to `stage`.

    Without `weights` the module has random weights, which are not in the package. `weights` is the folder of that step:
    the package then holds its weights. Raises BuildError.
    """
    structure, scheme = Structure.read(options), WeightScheme.read(options)
    limits = options["profile.max_input_len"], options["profile.max_seq_len"]
    began = time.monotonic()
    module = DecoderModule(structure, scheme, device).eval()
    tensors = _random_weights(module) if weights is None else package_loader.read(weights / manifest.WEIGHTS, device)
    module.load_state_dict(tensors)
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
    kept = {**tensors, **package_loader.scalars(scalars, device)} if weights is None else {}
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
    """Settings of torch._inductor.config. Generated files get a fixed name: a hash would depend on the folder."""
    settings: dict[str, Any] = {
        "aot_inductor.package_constants_in_so": embedded,
        "aot_inductor.model_name_for_generated_files": "engine",
        "aot_inductor.enable_line_tables": False,
        "aot_inductor.precompile_headers": False,  # each would be read only once
        "cpp.dynamic_threads": True,  # else the number of threads here would be in the code
    }
    if options["target.kind"] == "cuda":
        # Host code beside a GPU runs on any CPU: no vectors.
        return settings | {"cpp.simdlen": 1, "max_autotune": options["compiler.max_autotune"]}
    bits = LEVELS[options["target.level"]]
    isa = {256: cpu_vec_isa.VecAVX2, 512: cpu_vec_isa.VecAVX512}[bits]()
    # Otherwise PyTorch tries them out on this CPU, and engines for a newer CPU could only be built on one.
    cpu_vec_isa.valid_vec_isa_list = lambda: [isa]
    return settings | {
        "cpp.simdlen": bits,
        "cpp.vec_isa_ok": True,
        "max_autotune": options["compiler.max_autotune"],
    }


def _scalars(wanted: Sequence[str], module: DecoderModule) -> dict[str, int]:
    """The compiler's own constants: on a CPU the group size, once for each 4-bit product.

    Raises BuildError if the code otherwise wants other tensors than the module's: the compiler has then taken a weight
    for a constant of the code.
    """
    own = set(module.state_dict())
    constants = {
        name: module.scheme.group_size or 0 for name in wanted if _OWN_CONSTANT.fullmatch(name) and name not in own
    }
    odd = own ^ (set(wanted) - set(constants))
    if odd or (constants and (module.scheme.weights != "int4" or module.device != "cpu")):
        name = sorted(odd or constants)[0]
        raise BuildError(f"the package wants other tensors than the module has, such as {name}")
    return constants


def _has(setting: str) -> bool:
    """Whether this release of torch has the setting: those that some lack only save time or bytes."""
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
    """The arguments of a call of the module."""
    s, device = module.structure, module.device
    ids = torch.arange(count, device=device) * 7 % s.vocab
    shape, dtype = (s.kv_heads, slots, s.head_dim), cache_dtype(module.scheme.dtype, device)
    keys, values = ([torch.zeros(shape, dtype=dtype, device=device) for _ in range(s.layers)] for _ in range(2))
    return ids, torch.arange(count, device=device), keys, values


def _random_weights(module: DecoderModule) -> dict[str, torch.Tensor]:
    """Random weights of realistic size. No two tensors are equal, as the compiler would merge them."""
    random = torch.Generator(module.device).manual_seed(_SEED)
    tensors = {}
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
        tensors[name] = values
    return tensors


def _typical(name: str) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's values."""
    if name.endswith((".scales", ".groups")):
        return 3e-4, 3e-5
    return (1.0, 0.1) if "norm" in name else (0.0, 0.03)


def _runs_here(options: Mapping[str, Any]) -> bool:
    return options["target.kind"] == "cuda" or package_loader.level_refusal(options["target.level"]) is None


def _compare(path: Path, module: DecoderModule, weights: Mapping[str, torch.Tensor], limits: tuple[int, int]) -> float:
    """Compare the logits of package and module for a prompt and three more tokens, if there is room. BuildError."""
    opened = package_loader.open_package(path)
    package_loader.give(opened, weights)
    count, slots = min(_PROMPT, limits[0]), min(_SLOTS, limits[1])
    worst = 0.0
    expected_call, call = (_example(module, count, slots) for _ in range(2))
    with torch.no_grad():
        for at in range(count, min(count + 3, slots + 1)):
            expected = module(*expected_call)
            (logits,) = opened.boxed_run([*call[:2], *call[2], *call[3]])
            off = (logits - expected).abs().max() / expected.abs().max()
            worst = max(worst, float(off)) if torch.isfinite(off) else float("inf")
            token = expected.argmax()[None]
            position = torch.tensor([at], device=module.device)
            expected_call, call = (token, position, *expected_call[2:]), (token, position, *call[2:])
    most = _TOLERANCE_FP8 if module.scheme.weights == "fp8" else _TOLERANCE[module.scheme.dtype]
    if worst > most:
        raise BuildError(f"the package's logits are off by {worst:.2g} of the largest, beside the module's")
    return float(f"{worst:.2g}")
