"""The `engine` step: a network in standard operators becomes TensorRT engines, with a manifest of their inputs.

model.engine, or decode.engine and prefill.engine        see `shapes`
engine.json                                              see `manifest`
tokenizer.json, config.json, generation_config.json, …   from the network step
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.compilers import cuda
from trtbuild.compilers.tensorrt import addresses, builder, header, manifest
from trtbuild.compilers.tensorrt.options import DEFAULT_SEQUENCE
from trtbuild.compilers.tensorrt.quantization import SCHEMES, quantize_network
from trtbuild.compilers.tensorrt.shapes import SHAPES, ProfileLimits, ShapePlan, engines, inputs
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.weights.tensors import Network
from trtbuild.processes import programs
from trtbuild.worker import Reporter, StepRequest

CONFIG = "config.json"
_STACK = 8 << 20  # bytes, of the builder's threads: their sizes shift later mappings
_ERROR = "[E]"  # marks errors in TensorRT's log


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Build the engines of the network `request.inputs["network"]` in `out`; returns facts for the record.

    Options are the facts of the step's key. Raises InputError for limits beyond the model's, BuildError if the builder
    fails.
    """
    options, folder = request.options, request.inputs["network"]
    decoder = parse(untrusted.read_object(folder / CONFIG))
    limits = _limits(options, decoder)
    if options["compiler.name"] == "tensorrt":
        _check_gpu(str(options["target.compute_capability"]))
    plans = engines(request.choice("compiler.shapes", SHAPES), limits)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in (builder.NETWORK, builder.NETWORK + ".data"):
            shutil.copyfile(path, out / path.name)
    with tempfile.TemporaryDirectory(prefix="engine-", dir=out.parent) as scratch:
        stage = Path(scratch)
        network = _stage(request, folder / builder.NETWORK, stage, reporter)
        reporter.progress("TensorRT", 0, 1, "build")
        for at, hint in enumerate(request.hints):
            shutil.copyfile(hint, stage / f"{builder.TIMINGS}.{at}")
        spec = _spec(options, decoder, plans) | {"timings": len(request.hints)}
        answer = build_apart(spec, stage)
        if request.learnt is not None and (stage / builder.TIMINGS).is_file():
            shutil.copyfile(stage / builder.TIMINGS, request.learnt)
        for plan in plans:
            (stage / plan.file).replace(out / plan.file)
    about = manifest.describe(options, decoder, limits, plans, answer)
    manifest.write(about, out)
    return {
        "executed": False,  # by this step; the check adds its own facts
        "bytes": sum((out / plan.file).stat().st_size for plan in plans),
        "network_operators": len(network.model.graph.node),
        "addresses_randomised": answer["randomised"],
        **{name: answer[name] for name in ("timing_cache_bytes",) if name in answer},
        "timing_caches_taken": len(request.hints),
        "engine": about,
        "headers": {plan.file: _header(out / plan.file) for plan in plans},
    }


def build_apart(spec: builder.Spec, stage: Path) -> dict[str, Any]:
    """Run `builder` in the folder `stage`, which holds the network; returns its result. Raises BuildError.

    It has a folder of its own, and an environment that only says where libraries are: what differs between machines and
    runs must not reach the builder.
    """
    (stage / builder.SPEC).write_text(json.dumps(spec), encoding="utf-8")
    _settle()
    environment = programs.allowed(("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TMPDIR"))
    environment |= {programs.MORE: programs.inherited()[programs.MORE], **addresses.TUNABLES}
    finished = subprocess.run(
        programs.module(sys.executable, builder.__name__),
        cwd=stage,
        env=environment,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    log = finished.stderr.decode(errors="replace")
    sys.stderr.write(log)
    result = stage / builder.RESULT
    if finished.returncode != 0 or not result.is_file():
        status = finished.returncode
        how = f"signal {-status}" if status < 0 else f"exit code {status}"
        raise BuildError(f"TensorRT's builder ended with {how}: {_last_error(log)}")
    answer: dict[str, Any] = untrusted.read_object(result)
    if "error" in answer:
        message = str(answer["error"]).replace(builder.LOG_SAYS, _last_error(log))
        raise BuildError(message, option=answer["option"])
    return answer


def _stage(request: StepRequest, network: Path, stage: Path, reporter: Reporter) -> Network:
    """Put the network into `stage`, quantized if the options say so."""
    weights = request.choice("quant.weights", ("none", *SCHEMES))
    target = stage / builder.NETWORK
    if weights == "none":
        for suffix in ("", ".data"):
            Path(f"{target}{suffix}").symlink_to(Path(f"{network}{suffix}").absolute())
        return Network.open(target)
    group = request.options.get("quant.group_size")
    done = reporter.percents("quantize")
    return quantize_network(Network.open(network), weights, group, target, done)


def _spec(options: Mapping[str, Any], decoder: Decoder, plans: tuple[ShapePlan, ...]) -> dict[str, Any]:
    prefix = "compiler."
    return {
        "compiler": options["compiler.name"],
        "compute_capability": options.get("target.compute_capability"),
        "dtype": options["model.dtype"],
        "options": {n.removeprefix(prefix): value for n, value in options.items() if n.startswith(prefix)},
        "engines": [
            {
                "file": plan.file,
                "static": plan.static,
                "profiles": [inputs(decoder, phase) for phase in plan.phases],
            }
            for plan in plans
        ],
    }


def _limits(options: Mapping[str, Any], decoder: Decoder) -> ProfileLimits:
    """The limits from the options; a default length shrinks to the model's context. Raises InputError."""
    batch, longest = options["profile.max_batch_size"], options["profile.max_input_len"]
    sequence, context = options["profile.max_seq_len"], decoder.max_positions
    if sequence == DEFAULT_SEQUENCE > context:
        sequence = context
        longest = longest if longest < sequence else sequence // 2
    if sequence > context:
        raise InputError(
            f"{sequence} is beyond the model's context of {context} tokens",
            option="profile.max_seq_len",
            hint=f"choose at most {context}: profile.max_seq_len={context}",
        )
    return ProfileLimits(batch, longest, sequence)


def _check_gpu(capability: str) -> None:
    """TensorRT builds for whatever GPU it sees: it must be the one of the key. Raises InputError."""
    gpu, missing = cuda.find()
    if gpu is None or gpu.capability != capability:
        here = missing if gpu is None else f"the {gpu.name} here has {gpu.capability}"
        raise InputError(
            f"compiler=tensorrt builds for compute capability {capability} on such a GPU, and {here}",
            option="target",
            hint="run this on the target; compiler=tensorrt_rtx builds for RTX GPUs anywhere",
        )


def _settle() -> None:
    """Make addresses repeat in programs that this process starts, as far as this machine allows."""
    addresses.stop_randomising()
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if hard == resource.RLIM_INFINITY or hard >= _STACK:
        resource.setrlimit(resource.RLIMIT_STACK, (_STACK, hard))


def _header(path: Path) -> dict[str, Any] | None:
    with path.open("rb") as stream:
        plan = header.read(stream.read(header.SIZE))
    return None if plan is None else {"release": plan.release, "capabilities": list(plan.capabilities)}


def _last_error(log: str) -> str:
    lines = [line.partition(_ERROR)[2].strip() for line in log.splitlines() if _ERROR in line]
    return lines[-1][:300] if lines else "its log says no more"
