"""What serves an engine, written beside it: the exact `trtllm-serve` command, or what makes a Triton model repository.

The template of a repository, `inflight_batcher_llm`, differs from release to release of NVIDIA's image. So what is
written is a script that takes the image's own and fills it in by NVIDIA's `fill_template.py`, with the engine's values.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from trtbuild.compilers.tensorrt_llm import folder
from trtbuild.compilers.tensorrt_llm.contract import UNEXECUTED, contract
from trtbuild.compilers.tensorrt_llm.folder import TOKENIZER, Built

_HEAD = f"#!/bin/sh\n# Written by trtbuild; {UNEXECUTED}.\nset -eu\n"
_INSTANCES = ("preprocessing_instance_count", "postprocessing_instance_count", "bls_instance_count")


def trtllm(engine: Path) -> Mapping[str, str]:
    """{file name: text} of `serve=trtllm` for the engine in the folder `engine`. Raises BuildError."""
    words = shlex.join(["trtllm-serve", *serve_words(engine, folder.read(engine))])
    return {"serve.sh": f'{_HEAD}exec {words} "$@"\n'}


def serve_words(engine: Path, built: Built) -> list[str]:
    """What follows `trtllm-serve`."""
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
    """{file name: text} of `serve=triton` for the engine in the folder `engine`. Raises BuildError."""
    built = folder.read(engine)
    fills = "\n".join(
        f'python3 "$tools/fill_template.py" -i "$repository/{model}/config.pbtxt" '
        + shlex.quote(",".join(f"{name}:{value}" for name, value in values.items()))
        for model, values in fill_values(engine, built).items()
    )
    images = ", ".join(contract()["images"]["triton_name"].replace("{yy.mm}", each) for each in _images())
    make = (
        f"{_HEAD}# In NVIDIA's image that has TensorRT-LLM 1.2: {images}.\n"
        'repository=${1:-$(dirname "$0")/repository}\n'
        "models=${MODELS:-/app/all_models/inflight_batcher_llm}\n"
        "tools=${TOOLS:-/app/tools}\n"
        'mkdir -p "$repository"\ncp -R "$models/." "$repository/"\n'
        f"{fills}\n"
    )
    launch = (
        f'{_HEAD}repository=${{1:-$(dirname "$0")/repository}}\n'
        "scripts=${SCRIPTS:-/app/scripts}\n"
        f'exec python3 "$scripts/launch_triton_server.py" --world_size={built.ranks} --model_repo="$repository"\n'
    )
    return {"make-repository.sh": make, "serve.sh": launch}


def fill_values(engine: Path, built: Built) -> Mapping[str, Mapping[str, str]]:
    """Each model of the repository -> the values of its template."""
    limits = built.build_config
    batch, tokenizer = str(limits.get("max_batch_size", 1)), str(engine / TOKENIZER)
    common = {"triton_max_batch_size": batch, "logits_datatype": "TYPE_FP32"}
    instances = dict.fromkeys(_INSTANCES, "1")
    plugins = limits.get("plugin_config", {})
    paged = bool(plugins.get("use_paged_context_fmha")) and limits.get("kv_cache_type") in (
        None,
        "paged",
        "PAGED",
    )
    return {
        "preprocessing": {
            **common,
            "tokenizer_dir": tokenizer,
            "preprocessing_instance_count": instances["preprocessing_instance_count"],
        },
        "postprocessing": {
            **common,
            "tokenizer_dir": tokenizer,
            "postprocessing_instance_count": instances["postprocessing_instance_count"],
        },
        "ensemble": common,
        "tensorrt_llm_bls": {
            **common,
            "decoupled_mode": "True",
            "bls_instance_count": instances["bls_instance_count"],
            "accumulate_tokens": "False",
            "prompt_embedding_table_data_type": "TYPE_FP16",
        },
        "tensorrt_llm": {
            **common,
            "triton_backend": "tensorrtllm",
            "engine_dir": str(engine),  # which the template gives to gpt_model_path
            "decoupled_mode": "True",
            "batching_strategy": "inflight_fused_batching",
            "max_beam_width": str(limits.get("max_beam_width", 1)),
            "max_queue_delay_microseconds": "0",
            "max_queue_size": "0",
            "enable_kv_cache_reuse": str(paged),
            "enable_chunked_context": str(paged),
            "kv_cache_free_gpu_mem_fraction": "0.9",
            "exclude_input_in_output": "True",
            "encoder_input_features_data_type": "TYPE_FP16",
            "prompt_embedding_table_data_type": "TYPE_FP16",
        },
    }


def _images() -> list[str]:
    """Triton's releases that carry the contract's TensorRT-LLM, the newest first."""
    told = contract()["images"]["triton"]
    return sorted((name for name, version in told.items() if version == contract()["version"]), reverse=True)
