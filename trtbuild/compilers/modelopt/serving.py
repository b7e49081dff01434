"""The files that serve a checkpoint: the server's command, and a Containerfile from the server's own image.

Written from documentation of November 2026, and not tried with a server: NVIDIA's for TensorRT-LLM (Model Optimizer,
"Unified HuggingFace Checkpoint"), vLLM 0.29 ("NVIDIA Model Optimizer") and SGLang ("Quantization"). vLLM and SGLang
detect the quantization of a checkpoint.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from trtbuild.compilers.modelopt.schemes import scheme_of
from trtbuild.errors import InputError
from trtbuild.facts.key import Step

_HEAD = "#!/bin/sh\n# Written by trtbuild; the server was not run when this was written.\nset -eu\n"
#: server -> the algorithms that it loads; None is a checkpoint without quantization
LOADED: Mapping[str, frozenset[str | None]] = {
    "trtllm": frozenset({None, "FP8", "NVFP4", "W4A16_AWQ", "W4A8_AWQ"}),
    "vllm": frozenset({None, "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "NVFP4"}),
    "sglang": frozenset({None, "FP8", "NVFP4"}),
}
_ANYWHERE = ["--host", "0.0.0.0", "--port", "8000"]  # noqa: S104  # a server that others reach


def check_server(server: str, step: Step) -> None:
    """Raises InputError if `server` cannot load the result of `step`."""
    algorithm = scheme_of(step.facts).algorithm
    if algorithm in LOADED[server]:
        return
    others = sorted(name for name, loaded in LOADED.items() if algorithm in loaded)
    loaded = ", ".join(sorted(filter(None, LOADED[server])))
    raise InputError(
        f"of ModelOpt's checkpoints it loads {loaded}, and this is {algorithm}",
        option=f"serve={server}",
        hint=f"serve={' or '.join(others)} loads it" if others else "no server here loads it; quant=fp8 all do",
    )


def trtllm(checkpoint: Path) -> Mapping[str, str]:
    """{file name: text} of `serve=trtllm`: TensorRT-LLM 1.3 and later, which builds no engines."""
    words = ["trtllm-serve", "{}", "--backend", "pytorch", *_ANYWHERE]
    return _files(checkpoint, words, "nvcr.io/nvidia/tensorrt-llm/release:1.3.0")


def vllm(checkpoint: Path) -> Mapping[str, str]:
    """{file name: text} of `serve=vllm`."""
    return _files(checkpoint, ["vllm", "serve", "{}", *_ANYWHERE], "vllm/vllm-openai:latest")


def sglang(checkpoint: Path) -> Mapping[str, str]:
    """{file name: text} of `serve=sglang`."""
    words = ["python3", "-m", "sglang.launch_server", "--model-path", "{}", *_ANYWHERE]
    return _files(checkpoint, words, "lmsysorg/sglang:latest")


def _files(checkpoint: Path, words: list[str], image: str) -> Mapping[str, str]:
    """The command for this machine, and a Containerfile for a container that has the folder at /checkpoint."""
    here = shlex.join([str(checkpoint) if word == "{}" else word for word in words])
    there = ", ".join(f'"{"/checkpoint" if word == "{}" else word}"' for word in words)
    recipe = (
        "# Written by trtbuild; not built when this was written. Pin the image by its digest before you rely on it.\n"
        f"#   docker build -t served {shlex.quote(f'{checkpoint.name}.serve')}\n"
        f"#   docker run --gpus all -p 8000:8000 -v {shlex.quote(f'{checkpoint}:/checkpoint:ro')} served\n"
        f"FROM {image}\n"
        f"ENTRYPOINT [{there}]\n"
    )
    return {"serve.sh": f'{_HEAD}exec {here} "$@"\n', "Containerfile": recipe}
