"""What a checkpoint's headers and small files show is refused by plan, build, sweep and doctor alike."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.networks import tiny_models
from tests.support import tiny
from tests.support.cli import Project
from tests.support.minihub import MiniHub

Spoil = Callable[[Path], None]


def of_config(**changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return spoil


def of_tokenizer_config(**changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(config | changes))

    return spoil


def of_tensors(change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Spoil:
    def spoil(folder: Path) -> None:
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")

    return spoil


def of_generation(**fields: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "generation_config.json").write_text(json.dumps(fields))

    return spoil


def adapter(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    named = {"peft_type": "LORA", "base_model_name_or_path": "org/base"}
    (folder / "adapter_config.json").write_text(json.dumps(named))


def pointer(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1000000\n"
    (folder / "model.safetensors").write_text(text)


def more_tokens(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    entry = {"id": tiny.VOCAB, "content": "<|im_start|>", "special": True, "normalized": False}
    content["added_tokens"].append(entry | dict.fromkeys(("single_word", "lstrip", "rstrip"), False))
    (folder / "tokenizer.json").write_text(json.dumps(content))


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


NORM = "model.norm.weight"
#: what is done to a checkpoint -> words of the error, and of its hint
SPOILT: dict[str, tuple[Spoil, tuple[str, ...], str]] = {
    "an embedding model": (of_config(is_causal=False), ("is_causal=False",), ""),
    "a soft cap": (of_config(final_logit_softcapping=30.0), ("final_logit_softcapping=30.0",), ""),
    "heads of 24": (of_config(head_dim=24), ("head_dim=24", "multiples of 16"), "compiler=aot_inductor"),
    "quantized already": (
        of_config(quantization_config={"quant_method": "gptq"}),
        ("quantization_config.quant_method='gptq'",),
        "unquantized",
    ),
    "a family that the builder gets wrong": (
        of_config(architectures=["Gemma3ForCausalLM"], model_type="gemma3_text"),
        ("Gemma3ForCausalLM", "rope_type"),
        "",
    ),
    "a tensor is missing": (
        of_tensors(lambda t: {name: each for name, each in t.items() if name != NORM}),
        (NORM,),
        "complete",
    ),
    "a tensor of another kind of model": (
        of_tensors(lambda t: {**t, "score.weight": np.ones((2, 64), np.float32)}),
        ("score.weight",),
        "causal language model",
    ),
    "weights in eight bits": (
        of_tensors(lambda t: {**t, NORM: t[NORM].astype(np.int8)}),
        (NORM, "I8"),
        "quantized from",
    ),
    "an adapter": (adapter, ("adapter", "org/base"), "merge"),
    "a pointer of Git LFS": (pointer, ("Git LFS",), "git lfs pull"),
    "a token beyond the rows": (more_tokens, ("<|im_start|>", str(tiny.VOCAB)), "resize_token_embeddings"),
    "no tokenizer": (no_tokenizer, ("tokenizer.json",), "save_pretrained"),
    "a special token that is none": (
        of_tokenizer_config(additional_special_tokens=["<tool>"]),
        ("<tool>", "tokenizer_config.json"),
        "save_pretrained",
    ),
    "files that disagree on a token": (
        of_tokenizer_config(added_tokens_decoder={str(tiny.EOS): {"content": "</s>", "lstrip": True}}),
        ("lstrip=true", "</s>"),
        "save_pretrained",
    ),
    "a token under another id": (
        of_tokenizer_config(added_tokens_decoder={"7": {"content": "</s>"}}),
        ("</s>", "as token 7"),
        "save_pretrained",
    ),
    "templates without a default": (
        of_tokenizer_config(chat_template=[{"name": "tools", "template": "{{ messages }}"}]),
        ("tools", "default"),
        "default",
    ),
    "a temperature that is none": (
        of_generation(temperature=float("nan")),
        ("generation_config.json holds NaN",),
        "",
    ),
    "an end beyond the rows": (of_config(eos_token_id=999), ("eos_token_id", "999"), ""),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "model")


@pytest.mark.parametrize("kind", SPOILT)
def test_plan_build_and_doctor_refuse_it_alike(kind: str, project: Project, checkpoint: Path) -> None:
    spoil, words, hint = SPOILT[kind]
    spoil(checkpoint)
    asked = (f"model.source={checkpoint}", "quant=int8")
    plan, build = (project.trtbuild(*verb, *asked) for verb in (("plan",), ()))
    assert (plan.code, build.code) == (2, 2)
    assert plan.err == build.err
    assert plan.out == build.out == ""
    error, *rest = build.err.splitlines()
    assert error.startswith("error: model.source")
    assert all(word in error for word in words), error
    assert hint in "\n".join(rest)
    assert project.records() == []
    checks = project.trtbuild("doctor", *asked, "output=json").json["checks"]
    found = next(each for each in checks if each["name"] == "checkpoint")
    assert found["state"] == "missing"
    assert all(word in found["words"] for word in words)


def test_a_sweep_builds_what_can_be_right_and_names_what_cannot(project: Project, tmp_path: Path) -> None:
    good, bad = tiny.write_model(tmp_path / "good"), tiny.write_model(tmp_path / "bad")
    of_config(is_causal=False)(bad)
    done = project.trtbuild("-m", f"model.source={good},{bad}", "quant=int8", "check=none")
    assert done.code == 2
    assert done.err.count("is_causal=False") == 1
    assert len(done.out.splitlines()) == 1
    engine = json.loads((Path(done.out.strip()) / "genai_config.json").read_text())
    assert engine["model"]["type"] == "llama"


def test_a_hit_reads_no_header(project: Project, checkpoint: Path) -> None:
    """What is in the store was examined when it was built: another machine's rules may not take it away."""
    asked = (f"model.source={checkpoint}", "quant=none", "check=none", "output=json")
    assert project.trtbuild(*asked).json["outcome"] == "built"
    assert project.trtbuild("plan", *asked).json["notes"] == []
    assert project.trtbuild(*asked).json["outcome"] == "hit-local"


def test_what_is_not_known_is_a_note_in_the_plan_and_in_the_record(project: Project, checkpoint: Path) -> None:
    of_config(unsloth_fixed=True, gadget={"size": 3})(checkpoint)
    buffer = np.ones(4, np.float32)
    of_tensors(lambda t: {**t, "model.layers.0.self_attn.rotary_emb.inv_freq": buffer})(checkpoint)
    asked = (f"model.source={checkpoint}", "quant=none", "check=none")
    notes = project.trtbuild("plan", *asked, "output=json").json["notes"]
    assert [word for word in ("gadget", "rotary_emb.inv_freq") if not any(word in note for note in notes)] == []
    told = project.trtbuild("plan", *asked).out
    assert all(f"note: {note}" in told for note in notes)
    built = project.trtbuild(*asked)
    assert built.code == 0, built.err
    assert all(f"note: {note}" in built.err for note in notes)
    key = project.trtbuild("plan", *asked, "output=json").json["steps"][0]["key"]
    (record,) = [path for path in project.records() if path.name == key]
    statement = json.loads(base64.b64decode(json.loads(record.read_text())["payload"]))
    assert all(note in json.dumps(statement) for note in notes)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9, "architectures": ["MistralForCausalLM"], "model_type": "mistral"},
        {"num_hidden_layers": 10**10, "layer_types": ["full_attention"]},
        {"max_position_embeddings": 10**15},
        {"vocab_size": 10**15},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_number_beyond_all_models_takes_no_memory(
    changes: dict[str, Any], project: Project, checkpoint: Path
) -> None:
    of_config(**changes)(checkpoint)
    done = project.trtbuild("plan", f"model.source={checkpoint}")
    assert done.code == 2
    assert done.err.startswith("error: model.source")


def test_a_name_that_a_terminal_would_obey_is_shown(project: Project, checkpoint: Path) -> None:
    of_config(**{"\u202e\x1b[31mred": 1})(checkpoint)
    done = project.trtbuild("plan", f"model.source={checkpoint}")
    assert done.code == 0
    assert "\\u202e\\x1b[31mred" in done.out
    assert "\x1b" not in done.out


def test_json_in_another_encoding_is_none(project: Project, checkpoint: Path) -> None:
    """As to transformers: plan says what a step would."""
    path = checkpoint / "config.json"
    path.write_text(path.read_text(), encoding="utf-16")
    assert "is not JSON in UTF-8" in project.trtbuild("plan", f"model.source={checkpoint}").err


def test_a_gguf_is_examined_with_its_tokenizer(project: Project, tmp_path: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", *tiny.byte_characters(), "ab", "ab"]
    settings = tiny_models.config(vocab_size=len(tokens))
    tiny_models.save_gguf(tmp_path / "m.gguf", settings, tiny_models.weights(settings), tokens=tokens)
    for verb in (["plan"], []):
        done = project.trtbuild(*verb, f"model.source={tmp_path / 'm.gguf'}", "quant=none")
        assert done.code == 2
        assert "one token, 'ab', under two ids" in done.err


def test_a_projector_is_no_model(project: Project, tiny_gguf: Path, tmp_path: Path) -> None:
    """A vision model's GGUF comes with an mmproj file: the model is taken, and the other is called what it is."""
    folder = tmp_path / "vision"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(tiny_gguf.read_bytes())
    writer = gguf.GGUFWriter(folder / "mmproj-f16.gguf", "clip")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert project.trtbuild("plan", f"model.source={folder}", "quant=none").code == 0
    named = project.trtbuild("plan", f"model.source={folder / 'mmproj-f16.gguf'}", "quant=none")
    assert named.code == 2
    assert "projector of a vision model" in named.err


@pytest.fixture
def hub() -> Iterator[MiniHub]:
    with MiniHub() as server:
        yield server


def test_on_the_hub_headers_are_read_in_ranges(project: Project, hub: MiniHub, tmp_path: Path) -> None:
    """The weights are never asked for; the second plan asks for no header again."""
    folder = tiny.write_model(tmp_path / "model", intermediate_size=1024, num_hidden_layers=4)
    of_tensors(lambda t: {name: each for name, each in t.items() if name != NORM})(folder)
    size = (folder / "model.safetensors").stat().st_size
    assert size > 1 << 20
    hub.add("tiny/llama", {path.name: path.read_bytes() for path in folder.iterdir()})
    env = {"HF_ENDPOINT": hub.url}
    for _ in range(2):
        done = project.trtbuild("plan", "model.source=hf://tiny/llama", "quant=int8", env=env)
        assert done.code == 2
        assert NORM in done.err
    sent = [entry.sent for entry in hub.log if "model.safetensors" in entry.path]
    assert 0 < sum(sent) <= 1 << 17
    assert sum(1 for each in sent if each) == 1
