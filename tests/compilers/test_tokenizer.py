"""A tokenizer made from GGUF metadata: onnxruntime-genai and `tokenizers` must agree on every text."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import onnxruntime_genai
import pytest
from tokenizers import Tokenizer

from tests.compilers.support import make_engine, make_network
from tests.support import tiny
from tests.support.cli import Project
from trtbuild.errors import InputError
from trtbuild.formats import gguf as gguf_file
from trtbuild.networks.tokenizer import convert, text_normalizer
from trtbuild.networks.tokenizer import gguf as gguf_tokenizer
from trtbuild.networks.weights.checkpoint import Checkpoint

Tokens = Callable[[str], list[int]]

TEXTS = [
    "",
    "Why is the sky blue?",
    "a 123 45  6\n\n 7 x",
    "don't  stop\tme é 漢字 🙂",
    "  12 ½ ² Ⅷ ①",
    "I'LL he'll DON'T O'Re",
    "   lead",
    "trail   ",
    "\n\n\nabc\r\n def\n",
    "x=1;\n\tif(y){return 0x1F;}//c\n",
    "CamelCaseWord HTMLParser iPhone's",
    "مرحبا بالعالم ٤٢",
    "e\u0301 combining",
    "<s>the sky</s>\n<user>  blue",
    "__init__ == None!!!...  ??",
]
_RANDOM = random.Random(0)  # texts, not secrets
TEXTS += ["".join(_RANDOM.choices("ab'sStT re 12\n\t .,!?é漢🙂½   -/", k=_RANDOM.randint(1, 24))) for _ in range(200)]

NORMAL, UNKNOWN, CONTROL, USER, BYTE = 1, 2, 3, 4, 6


@pytest.fixture(scope="module")
def engine(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Any engine: onnxruntime-genai gives a tokenizer only to one that it has loaded."""
    root = tmp_path_factory.mktemp("engine")
    make_engine(make_network(tiny_llama, root / "network"), root / "engine")
    return root / "engine"


def both(folder: Path, engine: Path, work: Path, special: bool = True) -> tuple[Tokens, Tokens, Any]:
    """Encoders over the tokenizer files in `folder`: of `tokenizers` and of onnxruntime-genai, and the latter."""
    loaded = shutil.copytree(engine, work / "loaded")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(folder / name, loaded / name)
    ours = Tokenizer.from_file(str(folder / "tokenizer.json"))
    steps = text_normalizer.steps_in(json.loads((folder / "tokenizer_config.json").read_text()))
    theirs = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(str(loaded)))
    theirs.update_options(add_special_tokens=str(special).lower())
    return (
        lambda text: ours.encode(text, add_special_tokens=special).ids,
        lambda text: [int(token) for token in theirs.encode(text_normalizer.normalize(text, steps, ()))],
        theirs,
    )


def write_gguf(path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """A GGUF file with these tokenizer fields and no tensors; returns its metadata as our reader sees it."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    for name, value in fields.items():
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_array(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf_file.read_file(path, path.name, "model.source").metadata


def byte_level(**changes: Any) -> dict[str, Any]:
    """A byte-level BPE: 256 characters, a dozen merges, specials."""
    merges = [
        "t h",
        "th e",
        "s k",
        "sk y",
        "Ġ the",
        "Ġ sky",
        "l l",
        "Ġ Ġ",
        "ĠĠ Ġ",
        "1 2",
        "12 3",
        "Ċ Ċ",
        "' s",
        "b l",
        "u e",
    ]
    words = [merge.replace(" ", "") for merge in merges]
    tokens = [*tiny.byte_characters(), *words, "the!", "<s>", "</s>", "<user>"]
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [NORMAL] * (len(tokens) - 3) + [CONTROL, CONTROL, USER],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": len(tokens) - 3,
        "tokenizer.ggml.eos_token_id": len(tokens) - 2,
    }
    return {name: value for name, value in (fields | prefixed(changes)).items() if value is not None}


def sentence_piece(**changes: Any) -> dict[str, Any]:
    """A SentencePiece BPE: bytes, characters, words with scores, runs of spaces."""
    words = [
        *"▁theskybluand12.,!é漢'S",
        "▁t",
        "he",
        "▁the",
        "sk",
        "sky",
        "▁sky",
        "bl",
        "ue",
        "blue",
        "▁blue",
        "▁▁",
    ]
    words = list(dict.fromkeys([*words, "▁▁▁", "an", "▁and"]))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, "<user>"]
    fields = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(words) + [USER],
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(words))] + [0.0],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return {name: value for name, value in (fields | prefixed(changes)).items() if value is not None}


def prefixed(changes: dict[str, Any]) -> dict[str, Any]:
    return {f"tokenizer.ggml.{name}": value for name, value in changes.items()}


KINDS = {
    **{
        pre: byte_level(pre=pre)
        for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "deepseek-v3", "tekken", "dbrx")
    },
    "bos and eos": byte_level(add_bos_token=True, add_eos_token=True),
    "sentencepiece": sentence_piece(),
    "sentencepiece without prefix": sentence_piece(add_space_prefix=False),
    "sentencepiece without bos": sentence_piece(add_bos_token=False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_genai_and_tokenizers_agree(kind: str, engine: Path, tmp_path: Path) -> None:
    metadata = write_gguf(tmp_path / "model.gguf", KINDS[kind])
    convert.write(Checkpoint({}, metadata, {}, {}, {}), tmp_path)
    convert.rewrite(tmp_path)
    ours, theirs, _ = both(tmp_path, engine, tmp_path)
    different = {text: (ours(text), theirs(text)) for text in TEXTS if ours(text) != theirs(text)}
    assert not different


@pytest.mark.parametrize(
    ("kind", "text", "pieces"),
    [
        ("gpt-2", "the sky 123", ["the", "Ġsky", "Ġ", "123"]),
        ("smollm", "the sky 123", ["the", "Ġsky", "Ġ", "1", "2", "3"]),
        ("qwen2", "the sky 123", ["the", "Ġsky", "Ġ", "1", "2", "3"]),
        ("llama-bpe", "the sky", ["<s>", "the", "Ġsky"]),
        ("bos and eos", "the sky<user>", ["<s>", "the", "Ġsky", "<user>", "</s>"]),
        ("sentencepiece", "the sky~", ["<s>", "▁the", "▁sky", "<0x7E>"]),
        ("sentencepiece", "a   sky", ["<s>", "▁", "a", "▁▁", "▁sky"]),
        ("sentencepiece without prefix", "the sky", ["<s>", "t", "he", "▁sky"]),
    ],
)
def test_pieces_are_those_of_the_model(kind: str, text: str, pieces: list[str]) -> None:
    made = gguf_tokenizer.convert(KINDS[kind])
    assert Tokenizer.from_str(json.dumps(made.tokenizer)).encode(text).tokens == pieces


def test_a_whole_word_is_taken_as_it_is_where_llama_3_does(engine: Path, tmp_path: Path) -> None:
    fields = byte_level(pre="llama-bpe")
    fields["tokenizer.ggml.tokens"][-4] = "zzz"  # a token that no merge makes
    convert.write(Checkpoint({}, fields, {}, {}, {}), tmp_path)
    convert.rewrite(tmp_path)
    ours, theirs, _ = both(tmp_path, engine, tmp_path)
    assert (
        ours("zzz")
        == theirs("zzz")
        == [len(fields["tokenizer.ggml.tokens"]) - 3, len(fields["tokenizer.ggml.tokens"]) - 4]
    )


def test_the_chat_template_reaches_the_runtime(engine: Path, tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[bot]{% endif %}"
    )
    fields = byte_level() | {"tokenizer.chat_template": template}
    metadata = write_gguf(tmp_path / "model.gguf", fields)
    convert.write(Checkpoint({}, metadata, {}, {}, {}), tmp_path)
    convert.rewrite(tmp_path)
    *_, theirs = both(tmp_path, engine, tmp_path)
    messages = json.dumps([{"role": "user", "content": "hi"}])
    assert theirs.apply_chat_template(messages=messages, add_generation_prompt=True) == "[user]hi[bot]"


def test_bytes_repeat(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        convert.write(Checkpoint({}, sentence_piece(), {}, {}, {}), tmp_path / name)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "no tokenizer"),
        (byte_level(pre=None), "tokenizer.ggml.pre=nothing"),
        (byte_level(pre="no-such"), "tokenizer.ggml.pre=no-such"),
        (byte_level(merges=None), "tokenizer.ggml.merges"),
        (byte_level(model="bert"), "tokenizer.ggml.model=bert"),
        (byte_level(tokens=["a", "b", "foo", "foo"]), "'foo', under two ids, 2 and 3"),
        (byte_level(eos_token_id=5000), "tokenizer.ggml.eos_token_id=5000"),
        (sentence_piece(scores=None), "a score for each token"),
        (sentence_piece(scores=[1.0]), "a score for each token"),
        (sentence_piece(token_type=[1]), "a type for each token"),
    ],
)
def test_what_is_wrong_with_the_metadata_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as failure:
        gguf_tokenizer.convert(fields)
    assert failure.value.option == "model.source"


@pytest.mark.parametrize("missing", ["tokenizer.json", "tokenizer_config.json"])
def test_a_checkpoint_without_a_tokenizer_is_refused(missing: str, tiny_llama: Path, tmp_path: Path) -> None:
    files = {path.name: path for path in tiny_llama.iterdir() if path.name != missing}
    with pytest.raises(InputError, match=rf"no {missing}"):
        convert.write(Checkpoint.open(files), tmp_path)


def test_a_checkpoints_own_files_are_copied(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "out").mkdir()
    convert.write(Checkpoint.open({path.name: path for path in folder.iterdir()}), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()


@pytest.mark.parametrize("kind", ["digits", "no pre-tokenizer"])
def test_what_genai_would_misread_is_said_otherwise(kind: str, tiny_llama: Path, engine: Path, tmp_path: Path) -> None:
    """SmolLM's Digits, and Llama 2's lack of a pre-tokenizer: `tokenizers` sees no change, genai now agrees."""
    made = gguf_tokenizer.convert(KINDS["smollm" if kind == "digits" else "sentencepiece"])
    byte_level_step = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    digits = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level_step],
    }
    given = made.tokenizer | {"pre_tokenizer": digits if kind == "digits" else None}
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "tokenizer.json").write_text(json.dumps(given))
    (folder / "tokenizer_config.json").write_text(json.dumps(made.config))
    (tmp_path / "out").mkdir()
    files = {path.name: path for path in folder.iterdir()}
    convert.write(Checkpoint.open(files), tmp_path / "out")
    convert.rewrite(tmp_path / "out")
    ours, theirs, _ = both(tmp_path / "out", engine, tmp_path)
    original = Tokenizer.from_str(json.dumps(given))
    assert [original.encode(text).ids for text in TEXTS] == [ours(text) for text in TEXTS]
    assert [theirs(text) for text in TEXTS] == [ours(text) for text in TEXTS]


@pytest.mark.slow
@pytest.mark.xdist_group("smollm2")
def test_a_real_model_round_trips(engine: Path, smollm2: Project, tmp_path: Path) -> None:
    assert smollm2.trtbuild("model=smollm2", "until=network", timeout=600).code == 0
    (gguf,) = (smollm2.store / "v1" / "trees").glob("*/model.gguf")
    convert.write(Checkpoint.open({"model.gguf": gguf}), tmp_path)
    convert.rewrite(tmp_path)
    ours, theirs, genai = both(tmp_path, engine, tmp_path)
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        assert ours(text) == theirs(text), text
        assert plain.decode(ours(text)) == (genai.decode(theirs(text)) if text else text)
