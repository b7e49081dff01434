"""The texts for calibration and verification: those that come with trtbuild, and the user's own."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from trtbuild import untrusted
from trtbuild.compilers.modelopt.schemes import ModelOptScheme
from trtbuild.errors import InputError

OPTION = "compiler.calib_dataset"
_DATA = resources.files("trtbuild.compilers.modelopt") / "data"
_COLUMNS = ("text", "article")  # a sample's text is in the first of these columns that there is


class TextTokenizer(Protocol):
    """Text to tokens, by the model's tokenizer."""

    def __call__(self, text: str) -> list[int]: ...


@cache
def packaged_text() -> str:
    """The packaged calibration text: a JSON object with `text` on each line. data/README.md has source and licence."""
    return (_DATA / "alice.jsonl").read_text(encoding="utf-8")


def packaged_samples() -> int:
    """The number of samples in `packaged_text`."""
    return len(packaged_text().splitlines())


def packaged_digest() -> str:
    """sha256:… of `packaged_text`, for the keys of checkpoints that are calibrated on it."""
    return f"sha256:{hashlib.sha256(packaged_text().encode()).hexdigest()}"


def fact(dataset: Any) -> dict[str, Any]:
    """The fact that a key reads about the calibration text; `dataset` is a digest, None the packaged text."""
    if dataset is None:
        return {"compiler.calib_packaged": packaged_digest()}
    return {OPTION: dataset}


def advice(scheme: ModelOptScheme, preset: str, count: int, dataset: Any) -> Iterator[str]:
    """Sentences for a user whose `count` samples of `dataset` are fewer than quant=`preset` wants."""
    if dataset is None:
        yield (
            f"scales are measured on {min(count, packaged_samples())} short samples that come with trtbuild, for "
            f"a first look; quant={preset} wants {scheme.samples}: name text like your own, {OPTION}=FILE"
        )
    elif count < scheme.basis:
        yield f"quant={preset} wants {scheme.basis} samples, and compiler.calib_size={count} gives fewer"


def evaluation_text() -> str:
    """The text whose mean loss is measured. No calibration uses it, unless a user names it."""
    return (_DATA / "constitution.txt").read_text(encoding="utf-8")


def samples(source: Path | None, tokenizer: TextTokenizer, count: int, length: int) -> list[list[int]]:
    """At most `count` samples of at most `length` tokens, from a file or folder `source`, or None: the packaged text.

    Each line of a .jsonl and each row of a .parquet is a sample; a .txt is cut into samples of `length` tokens. Files
    are read in order of their names. Raises InputError if there is no text, or a file cannot be read.
    """
    sampled: list[list[int]] = []
    for text, whole in _texts(source):
        tokens = tokenizer(text)
        pieces = [tokens[:length]] if whole else [tokens[at : at + length] for at in range(0, len(tokens), length)]
        sampled.extend(piece for piece in pieces if len(piece) > 1)
        if len(sampled) >= count:
            break
    if not sampled:
        raise InputError("there is no text in it", option=OPTION, hint=_hint())
    return sampled[:count]


def _texts(source: Path | None) -> Iterator[tuple[str, bool]]:
    """(text, whether it is one sample) for each text of `source`. Raises InputError."""
    if source is None:
        yield from ((text, True) for text in _lines(packaged_text(), "the packaged text"))
        return
    paths = [source] if source.is_file() else _files(source)
    if not paths:
        raise InputError(f"{source} has no .jsonl, .txt or .parquet file", option=OPTION, hint=_hint())
    for path in paths:
        if path.suffix == ".parquet":
            yield from ((row, True) for row in _rows(path))
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            raise InputError(f"{path.name} is no text in UTF-8", option=OPTION, hint=_hint()) from None
        if path.suffix == ".txt":
            yield text, False
        else:
            yield from ((line, True) for line in _lines(text, path.name))


def _files(folder: Path) -> Sequence[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".jsonl", ".txt", ".parquet")
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _rows(path: Path) -> Iterator[str]:
    """The texts of a .parquet, by pyarrow, which the toolchain has. Raises InputError."""
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(path)
        column = next(name for name in _COLUMNS if name in file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=64, columns=[column]):
            yield from (str(value) for value in batch.column(0).to_pylist() if value is not None)
    except (OSError, ValueError, StopIteration):  # the base classes of pyarrow's errors
        raise InputError(
            f"{path.name} is no parquet file with a column {' or '.join(_COLUMNS)}",
            option=OPTION,
            hint=_hint(),
        ) from None


def _lines(text: str, name: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = untrusted.parse(line)
            yield str(next(row[column] for column in _COLUMNS if column in row))
        except (ValueError, TypeError, StopIteration):
            raise InputError(
                f"line {number} of {name} is no JSON object with {' or '.join(_COLUMNS)}",
                option=OPTION,
                hint=_hint(),
            ) from None


def _hint() -> str:
    return (
        'name a .jsonl file with {"text": "…"} a line, a .parquet file with a column `text`, a .txt file, a folder '
        "of these, or such a file of a dataset on the Hub, hf://datasets/org/name/file@revision"
    )
