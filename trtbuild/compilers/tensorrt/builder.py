"""Runs TensorRT's builder in a process of its own: `python -m trtbuild.compilers.tensorrt.builder`.

It works in the current folder, so that the builder sees no path of this machine:

    spec.json             what to build: see `run`
    model.onnx, .data     the network
    <plan file>           each engine
    timings.<n>, timings  timing caches of earlier builds, and of this one (TensorRT alone)
    result.json           what came out

For TensorRT for RTX, and for TensorRT 8.6 to 11: the Python module itself, not the release number, tells what it lacks.
What only TensorRT has is in `_tune`.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trtbuild.compilers.tensorrt import addresses
from trtbuild.errors import BuildError

NETWORK, SPEC, RESULT, TIMINGS = "model.onnx", "spec.json", "result.json", "timings"
MODULES = {"tensorrt_rtx": "tensorrt_rtx_bindings", "tensorrt": "tensorrt"}
LOG_SAYS = "its log says why"  # in a message: replaced by the last error of the log
_DTYPES = {"HALF": "float16", "FLOAT": "float32", "BF16": "bfloat16", "INT32": "int32", "INT64": "int64"}
_PARSER_ERRORS = 3  # shown in a message

Spec = Mapping[str, Any]


def run(spec: Spec, trt: Any) -> dict[str, Any]:
    """Build each of `spec["engines"]` with the module `trt`; returns facts of the engines. Raises BuildError.

    {"compiler": "tensorrt_rtx" | "tensorrt", "compute_capability": "8.9" | null (any), "dtype": "float16",
     "options": {"optimization_level": 3, …}, "engines": [{"file": "model.engine", "static": false, "profiles":
     [{"input_ids": [least, typical, greatest], …}]}], "timings": 1}
    """
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    if spec["compiler"] == "tensorrt_rtx":
        builder.max_threads = 1  # with more threads the build order differs from run to run
    engines, timings = [], _timings(builder, spec) if spec["compiler"] == "tensorrt" else None
    for engine in spec["engines"]:
        network = _parse(trt, builder, logger)
        config = builder.create_builder_config()
        _aim(trt, config, spec["compute_capability"], spec["compiler"])
        _tune(trt, config, spec)
        if timings is not None:
            config.set_timing_cache(config.create_timing_cache(timings), ignore_mismatch=False)
        _shape(builder, config, network, engine)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise BuildError(f"TensorRT made no {engine['file']}: {LOG_SAYS}")
        with Path(engine["file"]).open("wb") as stream:
            stream.write(plan)
        if timings is not None:
            timings = bytes(config.get_timing_cache().serialize())
        engines.append({"file": engine["file"], "network_layers": network.num_layers, **_io(network)})
    answer = {"version": trt.__version__, "engines": engines}
    if timings is None:
        return answer
    Path(TIMINGS).write_bytes(timings)
    return {**answer, "timing_cache_bytes": len(timings)}


def _timings(builder: Any, spec: Spec) -> bytes:
    """The timing caches of earlier builds as one; TensorRT skips entries of other hardware or releases."""
    caches = [Path(f"{TIMINGS}.{at}").read_bytes() for at in range(spec["timings"])]
    if len(caches) < 2:
        return b"".join(caches)  # release 8.6 cannot read a serialized empty cache
    config = builder.create_builder_config()
    first, *others = (config.create_timing_cache(content) for content in caches)
    for other in others:
        first.combine(other, ignore_mismatch=False)
    return bytes(first.serialize())


def _parse(trt: Any, builder: Any, logger: Any) -> Any:
    flags, bits = trt.NetworkDefinitionCreationFlag, 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):  # the first up to release 10, the second from 9.1 on
        if hasattr(flags, name):
            bits |= 1 << int(getattr(flags, name))
    network = builder.create_network(bits)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(NETWORK):
        errors = [_described(parser.get_error(at)) for at in range(min(_PARSER_ERRORS, parser.num_errors))]
        raise BuildError(f"TensorRT cannot read the network: {'; '.join(errors) or LOG_SAYS}")
    return network


def _described(error: Any) -> str:
    """A parser error, with its node where the release names it (10 and later)."""
    names = [getattr(error, name)() for name in ("node_operator", "node_name") if hasattr(error, name)]
    return ": ".join([" ".join(names), error.desc()] if names else [error.desc()])


def _aim(trt: Any, config: Any, capability: str | None, compiler: str) -> None:
    """Set the compute capability; None is a portable engine. TensorRT itself builds for the GPU of this process."""
    if compiler == "tensorrt" or capability is None:
        return
    name = "SM" + capability.replace(".", "")
    kinds = trt.ComputeCapability
    config.num_compute_capabilities = 1
    if not hasattr(kinds, name) or not config.set_compute_capability(getattr(kinds, name), 0):
        raise BuildError(f"TensorRT for RTX {trt.__version__} does not build for compute capability {capability}")


def _tune(trt: Any, config: Any, spec: Spec) -> None:
    options, flags = spec["options"], trt.BuilderFlag
    if options.get("weight_streaming"):
        _set(config, flags, "WEIGHT_STREAMING", "compiler.weight_streaming", trt)
    if spec["compiler"] != "tensorrt":
        return
    config.builder_optimization_level = options["optimization_level"]
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the inspector reports precisions
    if options["workspace_gb"] is not None:
        size = int(options["workspace_gb"] * 1e9)
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)
    if options["version_compatible"]:
        _set(config, flags, "VERSION_COMPATIBLE", "compiler.version_compatible", trt)
    if options["tactic_sources"] is not None:
        config.set_tactic_sources(_sources(trt, options["tactic_sources"]))
    level = options["hardware_compatibility"].upper()
    if level != "NONE":
        levels = trt.HardwareCompatibilityLevel
        if not hasattr(levels, level):
            raise _lacks(trt, "compiler.hardware_compatibility")
        config.hardware_compatibility_level = getattr(levels, level)
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        _type_weakly(trt, config, spec["dtype"])


def _sources(trt: Any, names: str) -> int:
    known = {name.lower(): int(bit) for name, bit in trt.TacticSource.__members__.items()}
    bits = 0
    for name in names.split("+"):
        if name not in known:
            raise BuildError(
                f"{name!r} is no tactic source of this TensorRT: {', '.join(known)}",
                option="compiler.tactic_sources",
            )
        bits |= 1 << known[name]
    return bits


def _type_weakly(trt: Any, config: Any, dtype: str) -> None:
    """Before release 9.1 the builder chooses the type of each layer, whatever the network says. That is safe, as the
    norms of these networks cannot overflow (`networks.standard.LayerNormed`)."""
    if dtype != "float32":
        _set(config, trt.BuilderFlag, {"float16": "FP16", "bfloat16": "BF16"}[dtype], "model.dtype", trt)


def _set(config: Any, flags: Any, name: str, option: str, trt: Any) -> None:
    if not hasattr(flags, name):
        raise _lacks(trt, option)
    config.set_flag(getattr(flags, name))


def _lacks(trt: Any, option: str) -> BuildError:
    return BuildError(f"this release of TensorRT, {trt.__version__}, does not have it", option=option)


def _shape(builder: Any, config: Any, network: Any, engine: Spec) -> None:
    if engine["static"]:
        (shapes,) = engine["profiles"]
        for at in range(network.num_inputs):
            tensor = network.get_input(at)
            tensor.shape = tuple(shapes[tensor.name][0])
        return
    for shapes in engine["profiles"]:
        profile = builder.create_optimization_profile()
        for name, (least, typical, greatest) in shapes.items():
            profile.set_shape(name, tuple(least), tuple(typical), tuple(greatest))
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"TensorRT refuses the profile: {LOG_SAYS}")


def _io(network: Any) -> dict[str, Any]:
    """Inputs and outputs; tensors that differ only in their layer's number are one entry."""

    def described(tensors: Iterable[Any]) -> list[dict[str, Any]]:
        entries: dict[str, dict[str, Any]] = {}
        for tensor in tensors:
            name, dtype = re.sub(r"\.\d+\.", ".{layer}.", tensor.name), tensor.dtype.name
            entries[name] = {"name": name, "dtype": _DTYPES.get(dtype, dtype), "shape": list(tensor.shape)}
        return list(entries.values())

    return {
        "inputs": described(network.get_input(at) for at in range(network.num_inputs)),
        "outputs": described(network.get_output(at) for at in range(network.num_outputs)),
    }


def main() -> int:
    """Write a result or an error to result.json; returns 0."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: dies with the worker that started it
    os.dup2(2, 1)  # TensorRT prints to both; all of it goes to the log
    spec = json.loads(Path(SPEC).read_text(encoding="utf-8"))
    if spec["compiler"] == "tensorrt_rtx":  # TensorRT times kernels, so its plans differ anyway
        addresses.fill_above()
    trt = importlib.import_module(MODULES[spec["compiler"]])
    answer: dict[str, Any] = {"randomised": addresses.randomised()}
    try:
        addresses.run_in_new_arena(lambda: answer.update(run(spec, trt)))
    except BuildError as error:
        answer = {"error": error.message, "option": error.option}
    Path(RESULT).write_text(json.dumps(answer), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
