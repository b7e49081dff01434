"""Whether onnxruntime-genai reads and writes text as the `tokenizers` library does with the checkpoint's own file.

It runs before any weight is written: a model that is given other tokens than it was trained on answers, but worse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from tokenizers import Tokenizer

from trtbuild import untrusted
from trtbuild.errors import InputError
from trtbuild.networks.tokenizer import convert, genai_text, rewrite, text_normalizer
from trtbuild.networks.tokenizer.texts import TEXTS, around

_HINT = (
    "build it with compiler=aot_inductor, which speaks with the tokenizers library itself; "
    "onnxruntime-genai reads this tokenizer.json in another way"
)
_SHOWN = 24  # ids of each list in a message
_SAMPLED = 16  # one in so many tokens is read again by onnxruntime-genai where all is as it should be
T = TypeVar("T")


def say(folder: Path) -> None:
    """Say the tokenizer in `folder` as onnxruntime-genai reads it. InputError where `tokenizers` cannot."""
    _reference((folder / "tokenizer.json").read_bytes())
    convert.rewrite(folder)


def check(folder: Path, original: bytes | Path, model: dict[str, Any] | None = None) -> int:
    """Hold the tokenizer in `folder` to `original`, the checkpoint's tokenizer.json; returns how many texts agreed.

    `model` are fields for genai_config.json (`genai_text.opened`). Raises InputError with the first text that
    becomes other tokens, or the first token that becomes another text, and with both.
    """
    content = original.read_bytes() if isinstance(original, Path) else original
    reference = _reference(content)
    added = _added(reference)
    texts = [*TEXTS, *around(added, _template(folder))]
    with genai_text.opened(folder, model) as genai:
        engine = _Engine(
            genai,
            rewrite.asked_before(untrusted.json_object(content, "tokenizer.json")),
            tuple(added),
        )
        for special in (True, False):
            _compare_texts(engine, reference, texts, special)
        _compare_vocabulary(engine, reference)
    return len(texts)


def _reference(content: bytes) -> Tokenizer:
    try:
        read = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # noqa: BLE001 - it raises Exception itself
        raise InputError(
            f"the tokenizers library cannot read the model's tokenizer.json: {error}",
            option="model.source",
            hint="write it again: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        ) from None
    read.no_truncation()
    read.no_padding()
    return read


def _added(reference: Tokenizer) -> list[str]:
    return [token.content for _, token in sorted(reference.get_added_tokens_decoder().items())]


def _template(folder: Path) -> str:
    """The chat template's text, where it is one; which of several counts is for others to settle."""
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    config = untrusted.read_object(folder / "tokenizer_config.json")
    template = config.get("chat_template")
    return template if isinstance(template, str) else ""


@dataclass(frozen=True)
class _Engine:
    """onnxruntime-genai's tokenizer, with what `text_normalizer` does before it is asked."""

    genai: Any
    steps: Sequence[str]
    added: Sequence[str]

    def encode(self, text: str) -> list[int]:
        given = text_normalizer.normalize(text, self.steps, self.added)
        try:
            return [int(token) for token in self.genai.encode(given)]
        except (RuntimeError, IndexError) as error:
            _refuse(f"onnxruntime-genai cannot read the text {_short(text)}: {error}")

    def decode(self, token: int) -> str:
        try:
            return str(self.genai.decode([token]))
        except (RuntimeError, IndexError, UnicodeDecodeError) as error:
            return f"an error ({error})"


def _compare_texts(engine: _Engine, reference: Tokenizer, texts: Sequence[str], special: bool) -> None:
    engine.genai.update_options(add_special_tokens=str(special).lower())
    for part in _parts(texts):
        for text, tokens in zip(part, reference.encode_batch_fast(part, add_special_tokens=special), strict=True):
            if (seen := engine.encode(text)) != tokens.ids:
                _refuse_text(text, seen, tokens.ids)


def _compare_vocabulary(engine: _Engine, reference: Tokenizer) -> None:
    """Each token is written as the same text, and this text is read as the same tokens again."""
    written = _written(reference)
    for token, text in written.items():
        # it writes no text, and U+0000, as U+FFFD
        said = engine.decode(token)
        if said != text and not (said == "\ufffd" and text in ("", "\0")):
            _refuse(f"token {token} is {text!r} to the tokenizers library and {said!r} to onnxruntime-genai")
    for part in _parts([(token, text) for token, text in written.items() if text and "\0" not in text]):
        encoded = reference.encode_batch_fast([text for _, text in part], add_special_tokens=False)
        for (token, text), tokens in zip(part, encoded, strict=True):
            # onnxruntime-genai takes a piece that is a token as it is; of those that merges make, some will do
            likely = token % _SAMPLED and tokens.ids == [token]
            if not likely and (seen := engine.encode(text)) != tokens.ids:
                _refuse_text(text, seen, tokens.ids)


def _written(reference: Tokenizer) -> dict[int, str]:
    """Token -> its text, without those that are a part of a character alone.

    A token is written after another, for `tokenizers` takes a leading space from the first of all.
    """
    anchor = reference.encode("a", add_special_tokens=False).ids[-1:]
    start = len(reference.decode(anchor))
    ids = sorted(reference.get_vocab(with_added_tokens=True).values())
    texts = reference.decode_batch([[*anchor, token] for token in ids])
    return {token: text[start:] for token, text in zip(ids, texts, strict=True) if "\ufffd" not in text[start:]}


def _parts(texts: Sequence[T], size: int = 20_000) -> Iterator[Sequence[T]]:
    """Encodings take far more memory than ids."""
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _refuse_text(text: str, seen: Sequence[int], expected: Sequence[int]) -> NoReturn:
    here = next(
        (n for n, (one, other) in enumerate(zip(seen, expected, strict=False)) if one != other),
        min(len(seen), len(expected)),
    )
    start = max(0, here - 4)
    _refuse(
        f"onnxruntime-genai makes other tokens of the text {_short(text)} than the tokenizers library does: "
        f"{_cut(seen, start)} instead of {_cut(expected, start)}"
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _cut(ids: Sequence[int], start: int) -> str:
    part = ", ".join(map(str, ids[start : start + _SHOWN]))
    return f"[{'..., ' if start else ''}{part}{', ...' if len(ids) > start + _SHOWN else ''}]"


def _refuse(message: str) -> NoReturn:
    raise InputError(message, option="model.source", hint=_HINT)
