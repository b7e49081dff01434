"""The network of an architecture that this package lacks, made by onnxruntime-genai's own model builder.

The builder needs torch, transformers and onnx-ir, and runs apart: `python -m onnxruntime_genai.models.builder`.
It is given float32 for CPUs, so that quantizing and optimising stay the engine step's, whatever made the graph.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from trtbuild.errors import BuildError, InputError
from trtbuild.networks.architectures import architecture_of
from trtbuild.networks.checkpoint import read_json
from trtbuild.worker import Reporter, Request

_LINES = 8  # of the builder's output in an error
_NEEDED = ("model.onnx", "model.onnx.data", "genai_config.json", "tokenizer_config.json")


def run(request: Request, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Write the network of `request.model` to the folder `out`; returns what it is, for the manifest.

    Raises InputError for a checkpoint without safetensors, BuildError when the builder fails.
    """
    if "config.json" not in request.model or not any(n.endswith(".safetensors") for n in request.model):
        raise InputError(
            "network.frontend=genai reads a Hugging Face checkpoint: config.json and .safetensors files",
            option="network.frontend",
            hint="leave network.frontend=auto for GGUF files, or name the model's safetensors repository",
        )
    config = read_json(request.model, "config.json")
    reporter.progress("builder", 0, 1, "step")
    out = out.absolute()
    with tempfile.TemporaryDirectory(prefix="builder-", dir=out.parent) as scratch:
        folder, cache = Path(scratch) / "model", Path(scratch) / "cache"
        for name, path in request.model.items():
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
        _build(folder, cache, out)
    for name in _NEEDED:
        if not (out / name).is_file():
            raise BuildError(f"onnxruntime-genai's builder made no {name}")
    if not (out / "config.json").exists():
        (out / "config.json").write_bytes(request.model["config.json"].read_bytes())
    reporter.progress("builder", 1, 1, "step")
    return {
        "architecture": architecture_of(config),
        "bytes": sum((out / name).stat().st_size for name in _NEEDED[:2]),
        "operators": "fused",
        "dtype": "float32",
    }


def _build(folder: Path, cache: Path, out: Path) -> None:
    arguments = ["-i", folder, "-o", out, "-p", "fp32", "-e", "cpu", "-c", cache]
    command = [sys.executable, "-P", "-m", "onnxruntime_genai.models.builder", *map(str, arguments)]
    # The builder would otherwise ask the Hub about a folder that it has been given.
    environment = dict(os.environ) | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        cwd=out.parent,
    )
    output = done.stdout.decode(errors="replace")
    sys.stderr.write(output)  # the step's log
    if done.returncode:
        lines = [line for line in output.splitlines() if line.strip()][-_LINES:]
        last = lines[-1] if lines else f"exit code {done.returncode}"
        raise BuildError(
            f"onnxruntime-genai's model builder failed: {last}",
            option="network.frontend",
            hint="its supported architectures are listed at https://github.com/microsoft/onnxruntime-genai",
            details=lines,
        )
