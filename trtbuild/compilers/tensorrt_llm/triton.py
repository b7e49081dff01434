"""A model repository for Triton's `tensorrtllm` backend: four models, like NVIDIA's `inflight_batcher_llm`.

preprocessing/   text to tokens, in Python
tensorrt_llm/    the engine, by NVIDIA's backend
postprocessing/  tokens to text, in Python
ensemble/        the three in sequence, for clients

Names of tensors and of parameters are those that the backend of release 1.2 reads
(triton_backend/inflight_batcher_llm/src: model_state.cc, model_instance_state.cc, utils.cc); those of the ensemble are
what NVIDIA's clients send. NVIDIA's templates, which differ from release to release, are not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from trtbuild.compilers.tensorrt_llm.engine_folder import TOKENIZER, EngineConfig

#: The folder of a version has to exist, though the backend reads nothing in it.
_VERSION = "1"
_PYTHON = "trtbuild.compilers.tensorrt_llm.triton_models"


class Word(str):
    """A name of the schema, such as TYPE_INT32, which is written without quotes."""


@dataclass(frozen=True)
class _Sampling:
    """A parameter of a request: the client's name, the backend's name, and the type."""

    name: str
    inner: str
    type: str


_SAMPLING = (
    _Sampling("top_k", "runtime_top_k", "INT32"),
    _Sampling("top_p", "runtime_top_p", "FP32"),
    _Sampling("temperature", "temperature", "FP32"),
    _Sampling("length_penalty", "len_penalty", "FP32"),
    _Sampling("repetition_penalty", "repetition_penalty", "FP32"),
    _Sampling("presence_penalty", "presence_penalty", "FP32"),
    _Sampling("frequency_penalty", "frequency_penalty", "FP32"),
    _Sampling("min_tokens", "min_tokens", "INT32"),
    _Sampling("seed", "seed", "UINT64"),
    _Sampling("beam_width", "beam_width", "INT32"),
    _Sampling("num_return_sequences", "num_return_sequences", "INT32"),
    _Sampling("return_log_probs", "return_log_probs", "BOOL"),
    _Sampling("exclude_input_in_output", "exclude_input_in_output", "BOOL"),
    _Sampling("stream", "streaming", "BOOL"),
)
_LOG_PROBS = (("cum_log_probs", "FP32", [-1]), ("output_log_probs", "FP32", [-1, -1]))
#: Inputs for the proposals of a draft model.
_DRAFT = (("draft_input_ids", "INT32", [-1]), ("draft_logits", "FP32", [-1, -1]))


def repository(engine: Path, built: EngineConfig, ends: Sequence[int], pad: int) -> Mapping[str, str]:
    """{path in the repository: text} for the engine in the folder `engine`.

    Any token of `ends` ends an answer; `pad` pads the prompts of a batch.
    """
    batch = int(built.build_config.get("max_batch_size") or 1)
    tokenizer = str(engine / TOKENIZER)
    tokens = {"tokenizer_dir": tokenizer, "end_ids": ",".join(map(str, ends)), "pad_id": str(pad)}
    configs = {
        "preprocessing": _preprocessing(batch, tokens),
        "tensorrt_llm": _backend(engine, built, batch),
        "postprocessing": _postprocessing(batch, {"tokenizer_dir": tokenizer}),
        "ensemble": _ensemble(batch),
    }
    files = {f"{name}/config.pbtxt": text(config) for name, config in configs.items()}
    models = resources.files(_PYTHON)
    for name in ("preprocessing", "postprocessing"):
        files[f"{name}/{_VERSION}/model.py"] = models.joinpath(f"{name}.py").read_text(encoding="utf-8")
    return files | {f"{name}/{_VERSION}/.keep": "" for name in ("tensorrt_llm", "ensemble")}


def text(message: Mapping[str, Any], indent: str = "") -> str:
    """A message in protobuf's text format: a list is a repeated field, a mapping a message."""
    lines = []
    for name, value in message.items():
        for item in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            if isinstance(item, Mapping):
                lines.append(f"{indent}{name} {{\n{text(item, indent + '  ')}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_scalar(item)}\n")
    return "".join(lines)


def _scalar(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Word):
        quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{quoted}"'
    return str(value)


def _tensor(name: str, kind: str, dims: Sequence[int], **more: Any) -> dict[str, Any]:
    return {"name": name, "data_type": Word(f"TYPE_{kind}"), "dims": list(dims), **more}


def _single(name: str, kind: str) -> dict[str, Any]:
    """One number of a request, which the backend takes as a scalar."""
    return _tensor(name, kind, [1], reshape={"shape": []})


def _optional(tensor: Mapping[str, Any]) -> dict[str, Any]:
    return {**tensor, "optional": True}


def _parameters(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": name, "value": {"string_value": value}} for name, value in values.items()]


def _on_cpu(count: int) -> list[dict[str, Any]]:
    return [{"count": count, "kind": Word("KIND_CPU")}]


def _preprocessing(batch: int, parameters: Mapping[str, str]) -> dict[str, Any]:
    words = [_optional(_tensor(f"{kind}_WORDS_DICT", "STRING", [-1])) for kind in ("STOP", "BAD")]
    tokens = [_optional(_tensor(f"{kind}_ID", "INT32", [1])) for kind in ("END", "PAD")]
    return {
        "name": "preprocessing",
        "backend": "python",
        "max_batch_size": batch,
        "input": [
            _tensor("QUERY", "STRING", [1]),
            _tensor("REQUEST_OUTPUT_LEN", "INT32", [1]),
            *words,
            *tokens,
        ],
        "output": [
            _tensor("INPUT_ID", "INT32", [-1]),
            _tensor("REQUEST_INPUT_LEN", "INT32", [1]),
            _tensor("REQUEST_OUTPUT_LEN", "INT32", [1]),
            *(_tensor(f"{kind}_WORDS_IDS", "INT32", [2, -1]) for kind in ("STOP", "BAD")),
            *(_tensor(f"OUT_{kind}_ID", "INT32", [1]) for kind in ("END", "PAD")),
        ],
        "instance_group": _on_cpu(1),
        "parameters": _parameters(parameters),
    }


def _postprocessing(batch: int, parameters: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": "postprocessing",
        "backend": "python",
        "max_batch_size": batch,
        "input": [_tensor("TOKENS_BATCH", "INT32", [-1, -1]), _tensor("SEQUENCE_LENGTH", "INT32", [-1])],
        "output": [_tensor("OUTPUT", "STRING", [-1])],
        "instance_group": _on_cpu(1),
        "parameters": _parameters(parameters),
    }


def _backend(engine: Path, built: EngineConfig, batch: int) -> dict[str, Any]:
    limits, mode = built.build_config, _speculative(built)
    drafted = mode == "draft_tokens_external"
    ragged = {"allow_ragged_batch": True}
    drafts = [
        *(_optional(_tensor(name, kind, dims, **ragged)) for name, kind, dims in _DRAFT),
        _optional(_single("draft_acceptance_threshold", "FP32")),
    ]
    return {
        "name": "tensorrt_llm",
        "backend": "tensorrtllm",
        "max_batch_size": batch,
        "model_transaction_policy": {"decoupled": True},
        "dynamic_batching": {
            "preferred_batch_size": [batch],
            "max_queue_delay_microseconds": 0,
            "default_queue_policy": {"max_queue_size": 0},
        },
        "input": [
            _tensor("input_ids", "INT32", [-1], **ragged),
            _single("input_lengths", "INT32"),
            _single("request_output_len", "INT32"),
            *(_optional(_single(name, "INT32")) for name in ("end_id", "pad_id")),
            *(_optional(_tensor(name, "INT32", [2, -1], **ragged)) for name in ("stop_words_list", "bad_words_list")),
            *(_optional(_single(parameter.inner, parameter.type)) for parameter in _SAMPLING),
            *(drafts if drafted else ()),
            _optional(_single("stop", "BOOL")),
        ],
        "output": [
            _tensor("output_ids", "INT32", [-1, -1]),
            _tensor("sequence_length", "INT32", [-1]),
            *(_tensor(*output) for output in _LOG_PROBS),
        ],
        "instance_group": _on_cpu(1),
        "parameters": _parameters(
            {
                "gpt_model_type": "inflight_fused_batching",
                "gpt_model_path": str(engine),
                "max_beam_width": str(limits.get("max_beam_width", 1)),
                **_paging(limits),
                "kv_cache_free_gpu_mem_fraction": "0.9",
                "exclude_input_in_output": "true",
                **_lookahead(mode, int(limits.get("max_draft_len") or 0)),
                # For guided decoding. The backend wants these three, though they may be empty.
                "tokenizer_dir": str(engine / TOKENIZER),
                "xgrammar_tokenizer_info_path": "",
                "guided_decoding_backend": "",
            }
        ),
    }


def _paging(limits: Mapping[str, Any]) -> dict[str, str]:
    """Shared cache blocks and chunked prompts, which need attention that reads a paged cache."""
    paged = bool(limits.get("plugin_config", {}).get("use_paged_context_fmha"))
    paged &= str(limits.get("kv_cache_type") or "paged").lower() == "paged"
    return dict.fromkeys(("enable_kv_cache_reuse", "enable_chunked_context"), "true" if paged else "false")


def _speculative(built: EngineConfig) -> str:
    """The mode by the name of trtllm-build's flag; config.json has it in capitals or as an enum's number."""
    mode = built.build_config.get("speculative_decoding_mode")
    names = {2: "draft_tokens_external", 8: "lookahead_decoding"}
    return names.get(mode, "none") if isinstance(mode, int) else str(mode or "none").lower()


def _lookahead(mode: str, drafts: int) -> dict[str, str]:
    """Window, n-gram and verification set of one size, the largest that fits the engine's `max_draft_len`.

    `calculateSpeculativeResourceTuple` of LookaheadDecodingConfig says how many drafts they take.
    """
    if mode != "lookahead_decoding":
        return {}
    fits = [size for size in range(2, 64) if size - 2 + (2 * size - 1) * (size - 1) <= drafts]
    window, ngram, verified = (max(fits),) * 3 if fits else (1, 1, 0)
    return {
        "decoding_mode": "lookahead",
        "lookahead_window_size": str(window),
        "lookahead_ngram_size": str(ngram),
        "lookahead_verification_set_size": str(verified),
    }


def _ensemble(batch: int) -> dict[str, Any]:
    inputs = {"text_input": "QUERY", "max_tokens": "REQUEST_OUTPUT_LEN", "stop_words": "STOP_WORDS_DICT"}
    inputs |= {"bad_words": "BAD_WORDS_DICT", "end_id": "END_ID", "pad_id": "PAD_ID"}
    between = {
        "INPUT_ID": "input_ids",
        "REQUEST_INPUT_LEN": "input_lengths",
        "REQUEST_OUTPUT_LEN": "request_output_len",
        "STOP_WORDS_IDS": "stop_words_list",
        "BAD_WORDS_IDS": "bad_words_list",
        "OUT_END_ID": "end_id",
        "OUT_PAD_ID": "pad_id",
    }
    outputs = {"output_ids": "TOKENS_BATCH", "sequence_length": "SEQUENCE_LENGTH"}
    sampling = {parameter.inner: parameter.name for parameter in _SAMPLING}
    log_probs = {name: name for name, _, _ in _LOG_PROBS}
    return {
        "name": "ensemble",
        "platform": "ensemble",
        "max_batch_size": batch,
        "input": [
            _tensor("text_input", "STRING", [1]),
            _tensor("max_tokens", "INT32", [1]),
            *(_optional(_tensor(name, "STRING", [-1])) for name in ("stop_words", "bad_words")),
            *(_optional(_tensor(name, "INT32", [1])) for name in ("end_id", "pad_id")),
            *(_optional(_tensor(parameter.name, parameter.type, [1])) for parameter in _SAMPLING),
        ],
        "output": [_tensor("text_output", "STRING", [-1]), *(_tensor(*output) for output in _LOG_PROBS)],
        "ensemble_scheduling": {
            "step": [
                _step(
                    "preprocessing",
                    {inner: name for name, inner in inputs.items()},
                    {n: f"_{n}" for n in between},
                ),
                _step(
                    "tensorrt_llm",
                    {inner: f"_{name}" for name, inner in between.items()} | sampling,
                    {name: f"_{inner}" for name, inner in outputs.items()} | log_probs,
                ),
                _step(
                    "postprocessing",
                    {name: f"_{name}" for name in outputs.values()},
                    {"OUTPUT": "text_output"},
                ),
            ]
        },
    }


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> dict[str, Any]:
    def pairs(names: Mapping[str, str]) -> list[dict[str, str]]:
        return [{"key": inner, "value": outer} for inner, outer in names.items()]

    return {
        "model_name": model,
        "model_version": -1,
        "input_map": pairs(inputs),
        "output_map": pairs(outputs),
    }
