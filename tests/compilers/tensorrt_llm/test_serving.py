"""`serve=`: the command of trtllm-serve, by the contract; a Triton repository, whose models in Python are run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.compilers.tensorrt_llm.conftest import Bench
from tests.support import triton
from trtbuild.compilers.tensorrt_llm.contract import contract

MODELS = ("ensemble", "postprocessing", "preprocessing", "tensorrt_llm")


def repository(bench: Bench, *words: str) -> Path:
    done = bench("build", "profile.max_batch_size=4", "out=engine", "serve=triton", *words)
    assert done.code == 0, done.err
    folder: Path = bench.project.root / "engine.serve" / "repository"
    assert tuple(sorted(path.name for path in folder.iterdir())) == MODELS
    return folder


def told(config: dict[str, Any]) -> dict[str, str]:
    return {each["key"]: each["value"].get("string_value", "") for each in config["parameters"]}


def test_the_command_of_trtllm_serve(bench: Bench) -> None:
    done = bench("build", "profile.max_batch_size=4", "parallel.tp=2", "target.gpus=2", "out=engine", "serve=trtllm")
    assert done.code == 0, done.err
    script = bench.project.root / "engine.serve" / "serve.sh"
    assert str(script.parent) in done.err
    assert os.access(script, os.X_OK)
    (line,) = [line for line in script.read_text().splitlines() if line.startswith("exec ")]
    words = shlex.split(line)[2:-1]
    flags = contract()["trtllm_serve_flags"]
    assert [word for word in words if word.startswith("--") and word not in flags] == []
    engine = str(bench.project.root / "engine")
    pairs = dict(zip(words[1::2], words[2::2], strict=True))
    assert words[0] == engine
    assert pairs["--tokenizer"] == f"{engine}/tokenizer"
    assert pairs["--backend"] == "tensorrt", "the engine backend, which is not its default"
    assert (pairs["--max_batch_size"], pairs["--tensor_parallel_size"]) == ("4", "2")
    assert "never executed on TensorRT-LLM itself" in script.read_text()


def test_a_triton_repository_is_whole(bench: Bench) -> None:
    """Each config is one, each version's folder is there, and what one model gives the next one takes."""
    folder = repository(bench, "parallel.tp=2", "target.gpus=2")
    configs = {name: triton.config(folder / name / "config.pbtxt") for name in MODELS}
    for name, config in configs.items():
        assert config["name"] == name
        assert config["max_batch_size"] == 4
        assert (folder / name / "1").is_dir()
    engine = str(bench.project.root / "engine")
    parameters = told(configs["tensorrt_llm"])
    assert parameters["gpt_model_path"] == engine
    assert parameters["gpt_model_type"] == "inflight_fused_batching"
    assert parameters["enable_kv_cache_reuse"] == "true"
    # Without these the backend refuses to start.
    assert parameters.keys() >= {"tokenizer_dir", "xgrammar_tokenizer_info_path", "guided_decoding_backend"}
    assert configs["tensorrt_llm"]["backend"] == "tensorrtllm"
    known = {each["name"]: each for each in configs["ensemble"]["input"]}
    for step in configs["ensemble"]["ensemble_scheduling"]["step"]:
        called = configs[step["model_name"]]
        takes = {each["name"]: each for each in called["input"]}
        gives = {each["name"]: each for each in called["output"]}
        for pair in step["input_map"]:
            inner, outer = takes.pop(pair["key"]), known[pair["value"]]
            assert inner["data_type"] == outer["data_type"], pair
            assert inner["dims"] == outer["dims"], pair
            assert inner.get("optional") or not outer.get("optional"), pair
        assert all(each.get("optional") for each in takes.values())
        known |= {pair["value"]: gives[pair["key"]] for pair in step["output_map"]}
    for each in configs["ensemble"]["output"]:
        assert known[each["name"]]["data_type"] == each["data_type"]
    script = (folder.parent / "serve.sh").read_text()
    assert "--world_size=2" in script
    assert "26.07-trtllm-python-py3" in script


def test_its_models_make_tokens_of_text_and_text_of_tokens(bench: Bench) -> None:
    config = json.loads((bench.model / "config.json").read_text())
    ends = config["eos_token_id"] if isinstance(config["eos_token_id"], list) else [config["eos_token_id"]]
    folder = repository(bench)
    with triton.model(folder / "preprocessing") as preprocess:
        made = preprocess(
            QUERY=[[b"the sky"], ["a\u00e9".encode()]],
            REQUEST_OUTPUT_LEN=[[5], [6]],
            STOP_WORDS_DICT=[[b"ab", b"c"], [b"", b""]],
        )
        single = preprocess(QUERY=[[b"the sky"]], REQUEST_OUTPUT_LEN=[[5]], END_ID=[[9]], PAD_ID=[[8]])
        with pytest.raises(RuntimeError, match="text_input is empty"):
            preprocess(QUERY=[[b""]], REQUEST_OUTPUT_LEN=[[5]])
    tokenizer = Tokenizer.from_file(str(bench.model / "tokenizer.json"))
    first, second = (tokenizer.encode(text).ids for text in ("the sky", "a\u00e9"))
    assert made["REQUEST_INPUT_LEN"].tolist() == [[len(first)], [len(second)]]
    assert made["INPUT_ID"][0].tolist() == first
    assert made["INPUT_ID"][1, : len(second)].tolist() == second
    assert set(made["INPUT_ID"][1, len(second) :].tolist()) == {made["OUT_PAD_ID"][1, 0]}
    assert made["OUT_END_ID"][0, 0] in ends
    # A word's tokens, and where each ends: three ends of one token each for "ab" and "c" by bytes.
    words = [tokenizer.encode(word, add_special_tokens=False).ids for word in ("ab", "c")]
    flat = [token for word in words for token in word]
    assert made["STOP_WORDS_IDS"][0, 0, : len(flat)].tolist() == flat
    assert made["STOP_WORDS_IDS"][0, 1, :2].tolist() == [len(words[0]), len(flat)]
    assert set(made["STOP_WORDS_IDS"][1, 1].tolist()) == {-1}
    assert made["BAD_WORDS_IDS"].shape == (2, 2, 0)
    assert (single["OUT_END_ID"].tolist(), single["OUT_PAD_ID"].tolist()) == ([[9]], [[8]])
    assert single["STOP_WORDS_IDS"].shape == (1, 2, 0)
    with triton.model(folder / "postprocessing") as postprocess:
        beams = [[[*first, 0, 0]], [[*second, *[0] * (len(first) + 2 - len(second))]]]
        said = postprocess(TOKENS_BATCH=beams, SEQUENCE_LENGTH=[[len(first)], [len(second)]])
    assert said["OUTPUT"].tolist() == [[b"the sky"], ["a\u00e9".encode()]]


def test_an_answer_ends_with_any_token_that_ends_one(bench: Bench, tmp_path: Path) -> None:
    """The engine takes one; the model's others are words to stop at, unless a client says what ends it."""
    model = shutil.copytree(bench.model, tmp_path / "chat")
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9], "pad_token_id": 7}))
    folder = repository(bench, f"model.source={model}")
    with triton.model(folder / "preprocessing") as preprocess:
        made = preprocess(QUERY=[[b"sky"]], REQUEST_OUTPUT_LEN=[[5]], STOP_WORDS_DICT=[[b"ab"]])
        told = preprocess(QUERY=[[b"sky"]], REQUEST_OUTPUT_LEN=[[5]], END_ID=[[3]])
    ends = made["STOP_WORDS_IDS"][0, 1].tolist()
    stops = made["STOP_WORDS_IDS"][0, 0].tolist()
    assert {made["OUT_END_ID"][0, 0], *stops[ends[0] :]} >= {7, 9}
    assert told["STOP_WORDS_IDS"].shape == (1, 2, 0)


def test_speculative_decoding_is_said_as_the_backend_reads_it(bench: Bench) -> None:
    words = ("compiler.speculative_decoding_mode=lookahead_decoding", "compiler.max_draft_len=83")
    folder = repository(bench, *words)
    config = triton.config(folder / "tensorrt_llm" / "config.pbtxt")
    parameters = told(config)
    assert parameters["decoding_mode"] == "lookahead"
    sizes = ("window", "ngram", "verification_set")
    assert {parameters[f"lookahead_{size}_size"] for size in sizes} == {"7"}  # as NVIDIA's own example has it
    assert not any(each["name"] == "draft_input_ids" for each in config["input"])
    folder = repository(bench, "compiler.speculative_decoding_mode=draft_tokens_external", "compiler.max_draft_len=5")
    config = triton.config(folder / "tensorrt_llm" / "config.pbtxt")
    assert any(each["name"] == "draft_input_ids" for each in config["input"])


def test_a_broken_file_of_the_model_is_named(bench: Bench, tmp_path: Path) -> None:
    model = shutil.copytree(bench.model, tmp_path / "broken")
    (model / "generation_config.json").write_text("{")
    done = bench("build", f"model.source={model}", "out=engine", "serve=triton")
    assert done.code == 2
    assert "serve=triton: the model's generation_config.json is not JSON" in done.err
    assert "Traceback" not in done.err


def test_a_model_without_tokenizer_json_is_told_of(bench: Bench, tmp_path: Path) -> None:
    model = shutil.copytree(bench.model, tmp_path / "old")
    (model / "tokenizer.json").rename(model / "tokenizer.model")
    done = bench("build", f"model.source={model}", "out=engine", "serve=triton")
    assert done.code == 2
    assert "read tokenizer.json, and this model has none" in done.err


def test_it_wants_a_place_and_a_compiler_that_has_it(bench: Bench) -> None:
    nowhere = bench("build", "serve=trtllm")
    assert nowhere.code == 2
    assert "out=engine makes engine and engine.serve" in nowhere.err
    other = bench.project.trtbuild(
        "build", f"model.source={bench.model}", "serve=triton", "out=engine", "compiler=onnxruntime"
    )
    assert other.code == 2
    assert "compilers that have: tensorrt_llm" in other.err
    assert not bench.project.records()
