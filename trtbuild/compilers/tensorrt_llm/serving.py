"""The files that serve an engine: the `trtllm-serve` command, or a Triton model repository."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from trtbuild import untrusted
from trtbuild.compilers.tensorrt_llm import engine_folder
from trtbuild.compilers.tensorrt_llm.contract import UNEXECUTED, contract
from trtbuild.compilers.tensorrt_llm.engine_folder import TOKENIZER, EngineConfig
from trtbuild.compilers.tensorrt_llm.triton import repository
from trtbuild.errors import InputError
from trtbuild.networks.chat import template
from trtbuild.networks.tokenizer.special_tokens import no_end

_HEAD = f"#!/bin/sh\n# Written by trtbuild; {UNEXECUTED}.\nset -eu\n"


def trtllm(engine: Path) -> Mapping[str, str]:
    """{file name: text} of `serve=trtllm` for the engine in the folder `engine`. Raises BuildError."""
    words = shlex.join(["trtllm-serve", *serve_words(engine, engine_folder.read(engine))])
    return {"serve.sh": f'{_HEAD}exec {words} "$@"\n'}


def serve_words(engine: Path, built: EngineConfig) -> list[str]:
    """The arguments of `trtllm-serve`."""
    mapping, limits = built.pretrained_config.get("mapping", {}), built.build_config
    words = [str(engine), "--tokenizer", str(engine / TOKENIZER), "--backend", "tensorrt"]
    for name in ("max_beam_width", "max_batch_size", "max_num_tokens", "max_seq_len"):
        if limits.get(name) is not None:
            words += [f"--{name}", str(limits[name])]
    for flag, name in (
        ("tensor_parallel_size", "tp_size"),
        ("pipeline_parallel_size", "pp_size"),
        ("context_parallel_size", "cp_size"),
    ):
        words += [f"--{flag}", str(mapping.get(name, 1))]
    return words


def triton(engine: Path) -> Mapping[str, str]:
    """{file name: text} of `serve=triton` for the engine in the folder `engine`. Raises BuildError, InputError."""
    built = engine_folder.read(engine)
    ends, pad = _tokens(engine / TOKENIZER)
    files = repository(engine, built, ends, pad)
    name = contract()["images"]["triton_name"]
    images = ", ".join(name.replace("{yy.mm}", release) for release in _images())
    launch = (
        f"{_HEAD}# In NVIDIA's image that has TensorRT-LLM 1.2: {images}.\n"
        'repository=${1:-$(dirname "$0")/repository}\n'
        "scripts=${SCRIPTS:-/app/scripts}\n"
        f'exec python3 "$scripts/launch_triton_server.py" --world_size={built.ranks} --model_repo="$repository"\n'
    )
    return {"serve.sh": launch, **{f"repository/{name}": text for name, text in files.items()}}


def _tokens(tokenizer: Path) -> tuple[list[int], int]:
    """(tokens that end an answer, token that pads a prompt). Raises InputError if the folder does not tell."""
    contents = {}
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"):
        path = tokenizer / name
        title = f"the model's {name}"
        contents[name] = untrusted.read_object(path, title, option="serve=triton") if path.is_file() else {}
    if not contents["tokenizer.json"]:
        raise InputError(
            "the Python models of a Triton repository read tokenizer.json, and this model has none",
            option="serve=triton",
            hint="save it with the tokenizer: AutoTokenizer.from_pretrained(model).save_pretrained(model)",
        )
    files = {name: tokenizer / name for name in contents if (tokenizer / name).is_file()}
    settled = template.settle(files, contents["config.json"])
    if not settled.ends:
        raise no_end()
    return list(settled.ends), settled.ends[0] if settled.pad is None else settled.pad


def _images() -> list[str]:
    """Releases of Triton's image with the contract's TensorRT-LLM, the newest first."""
    versions = contract()["images"]["triton"]
    return sorted((name for name, version in versions.items() if version == contract()["version"]), reverse=True)
