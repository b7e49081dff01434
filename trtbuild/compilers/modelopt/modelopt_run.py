"""Runs ModelOpt: loads a model, measures its activations on text, quantizes, and writes a unified checkpoint.

config.json              with quantization_config, in transformers' form
hf_quant_config.json     the same, in TensorRT-LLM's form
model*.safetensors       the weights
tokenizer.json, …        the tokenizer and its chat template, which ModelOpt does not write
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export import export_hf_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer

from trtbuild import untrusted
from trtbuild.compilers.modelopt import exclusions, texts, verify_export
from trtbuild.compilers.modelopt.schemes import KV_CACHES, ModelOptScheme, check_columns, scheme_of
from trtbuild.errors import BuildError
from trtbuild.networks.chat import files as chat_files
from trtbuild.networks.tokenizer.files import FILES
from trtbuild.networks.weights import as_transformers
from trtbuild.networks.weights.checkpoint import Checkpoint
from trtbuild.worker import Reporter, StepRequest

_ALSO = ("generation_config.json",)
_SMALL = (".json", ".jinja")  # files with chat templates and special tokens


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Write the checkpoint to `out` and verify it; returns facts for the record. Raises InputError, BuildError."""
    facts = request.options
    scheme = scheme_of(facts)
    cache = KV_CACHES[str(facts["quant.kv_cache"])]
    source = request.folder(Path(tempfile.gettempdir()))
    config = untrusted.read_object(source / "config.json")
    check_columns(config, scheme, facts.get("quant.group_size"))
    exclusions.check(exclusions.read(facts), config, scheme.algorithm, "none")
    as_transformers.check_folder(source)
    device = "cuda" if facts.get("target.kind") == "cuda" else "cpu"
    calibration = Calibration.read(request, device, "calib_max_length")
    model, used, tokens = quantized(
        source,
        str(facts["model.dtype"]),
        scheme,
        cache,
        facts.get("quant.group_size"),
        calibration,
        reporter,
        exclusions.read(facts),
    )
    with torch.inference_mode():
        export_hf_checkpoint(model, dtype=getattr(torch, str(facts["model.dtype"])), export_dir=str(out))
    del model
    _complete(source, out)
    proof = verify_export.verify(original(source), out, scheme, facts, tokens(texts.evaluation_text()))
    return {
        "algorithm": scheme.algorithm or "none",
        "kv_cache": cache[1] if cache else None,
        "device": device,
        "calibration": used,
        **proof,
    }


@dataclass(frozen=True)
class Calibration:
    """How scales are measured: on at most `samples` samples of `length` tokens, `batch` at once.

    `dataset` is a file or a folder (`texts.samples`), None the packaged text. `threads` is None for torch's default.
    """

    device: str  # cpu or cuda
    threads: int | None
    samples: int
    length: int
    batch: int
    dataset: Path | None

    @classmethod
    def read(cls, request: StepRequest, device: str, length: str) -> Calibration:
        """From a step's facts; `length` names the option for the tokens of a sample."""
        facts = request.options
        return cls(
            device,
            threads=facts.get("compiler.threads"),
            samples=int(facts.get("compiler.calib_size") or 0),
            length=int(facts.get(f"compiler.{length}") or 0),
            batch=int(facts.get("compiler.calib_batch_size") or 1),
            dataset=request.inputs.get("calib_dataset"),
        )


def original(source: Path) -> Checkpoint:
    """The original model in `source`, for the comparison."""
    return Checkpoint.open({path.name: path for path in source.iterdir() if path.is_file()})


def quantized(
    source: Path,
    dtype: str,
    scheme: ModelOptScheme,
    cache: tuple[str, str] | None,
    group: int | None,
    calibration: Calibration,
    reporter: Reporter,
    excluded: Sequence[str] = (),
    config: Any = None,
) -> tuple[Any, dict[str, int] | None, texts.TextTokenizer]:
    """(the quantized torch model; how many samples and tokens its scales rest on; its tokenizer).

    `excluded` are patterns of maps that are not quantized. `config` is a transformers config to use in place of
    config.json. Raises InputError, BuildError.
    """
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)

    def tokens(text: str) -> list[int]:
        return [int(token) for token in tokenizer(text)["input_ids"]]

    torch.manual_seed(0)
    if calibration.threads is not None:
        torch.set_num_threads(calibration.threads)
    model = _load(source, dtype, calibration.device, config)
    used: list[list[int]] = []
    if scheme.calibrated or cache is not None:
        used = texts.samples(calibration.dataset, tokens, calibration.samples, calibration.length)
    if scheme.recipe is not None:
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
        feed = _feed(used, calibration.batch, pad, calibration.device, reporter)
        maps = exclusions.modules(excluded, model.config.num_hidden_layers)
        model = _quantize(model, _config(scheme, cache, group, maps), feed)
    return model, {"samples": len(used), "tokens": sum(map(len, used))} if used else None, tokens


def _load(folder: Path, dtype: str, device: str, config: Any) -> Any:
    """The model on `device`: "cuda" spreads it over the GPUs and the host's memory. Raises BuildError without a GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise BuildError(
            "torch finds no GPU here, and the config says that this is calibrated on one",
            option="target",
            hint="target=cpu calibrates on the CPU; `trtbuild doctor` says what is wrong with the GPU",
        )
    return AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype=getattr(torch, dtype),
        local_files_only=True,
        use_safetensors=True,
        device_map="auto" if device == "cuda" else None,
    ).eval()


def _config(
    scheme: ModelOptScheme, cache: tuple[str, str] | None, group: int | None, excluded: frozenset[str]
) -> dict[str, Any]:
    """ModelOpt's config of the scheme, with this group size and KV cache; the maps `excluded` are not quantized."""
    config: dict[str, Any] = copy.deepcopy(getattr(mtq, str(scheme.recipe)))
    if scheme.grouped:
        for blocks in _block_sizes(config):
            if blocks.get(-1) and blocks.get("type") != "dynamic":
                blocks[-1] = group
    if cache is not None:
        rules, more = config["quant_cfg"], copy.deepcopy(getattr(mtq, cache[0]))["quant_cfg"]
        # A list; release 0.37 has a mapping.
        config["quant_cfg"] = [*rules, *more] if isinstance(rules, list) else rules | more
    off: dict[str, Any] = {"enable": False}
    rules, names = config["quant_cfg"], [f"{module}.*" for module in sorted(excluded)]
    if isinstance(rules, list):
        rules += [{"quantizer_name": name, **off} for name in names]
    else:
        rules |= dict.fromkeys(names, off)
    return config


def _block_sizes(node: Any) -> Iterator[dict[Any, Any]]:
    """Every mapping `block_sizes` below `node`."""
    if isinstance(node, dict):
        if isinstance(node.get("block_sizes"), dict):
            yield node["block_sizes"]
        for value in node.values():
            yield from _block_sizes(value)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _block_sizes(item)


def _quantize(model: Any, config: dict[str, Any], feed: Callable[[Any], None] | None) -> Any:
    try:
        return mtq.quantize(model, config, feed)
    except (AssertionError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "it does not say why")
        raise BuildError(f"ModelOpt cannot quantize this model so: {reason}") from error


def _feed(
    samples: Sequence[Sequence[int]], batch: int, pad: int, device: str, reporter: Reporter
) -> Callable[[Any], None] | None:
    """A function that runs a model on the samples, in batches padded at the end; None without samples."""
    if not samples:
        return None

    def feed(model: Any) -> None:
        with torch.no_grad():
            for at in range(0, len(samples), batch):
                rows = samples[at : at + batch]
                longest = max(map(len, rows))
                ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=device)
                mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
                model(input_ids=ids, attention_mask=mask)
                reporter.progress("samples", min(at + batch, len(samples)), len(samples), "samples")

    return feed


def _complete(source: Path, out: Path) -> None:
    """Add the files that a server wants beside the weights, and write configs the same way on every machine."""
    for name in (*FILES, *_ALSO):
        if (source / name).is_file() and not (out / name).is_file():
            shutil.copyfile(source / name, out / name)
    if (source / "tokenizer.json").is_file():
        files = {path.name: path for path in source.iterdir() if path.suffix in _SMALL}
        config = untrusted.read_object(source / "config.json")
        chat_files.write(files, config, None, out, keep=True)
    for name in ("config.json", "hf_quant_config.json"):
        path = out / name
        if path.is_file():
            config = untrusted.read_object(path)
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
