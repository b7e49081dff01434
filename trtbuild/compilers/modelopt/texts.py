"""The texts that a checkpoint is made and proved with: those that come with trtbuild, and the user's own."""

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
_COLUMNS = ("text", "article")  # of a JSON line, the first that it has


class TextTokenizer(Protocol):
    """Text to tokens, as the model's tokenizer does it."""

    def __call__(self, text: str) -> list[int]: ...


@cache
def packaged_text() -> str:
    """Samples to calibrate on, a JSON object with `text` a line; data/README.md has source and licence."""
    return (_DATA / "alice.jsonl").read_text(encoding="utf-8")


def packaged_samples() -> int:
    """How many samples `packaged_text` has."""
    return len(packaged_text().splitlines())


def packaged_digest() -> str:
    """sha256:… of `packaged_text`, which is in the keys of what is calibrated on it."""
    return f"sha256:{hashlib.sha256(packaged_text().encode()).hexdigest()}"


def fact(dataset: Any) -> dict[str, Any]:
    """What a key reads of the text that scales are measured on: `dataset` by content, None: the packaged one."""
    if dataset is None:
        return {"compiler.calib_packaged": packaged_digest()}
    return {OPTION: dataset}


def advice(scheme: ModelOptScheme, preset: str, count: int, dataset: Any) -> Iterator[str]:
    """Whether `count` samples of `dataset` are what a calibration of quant=`preset` wants, in words."""
    if dataset is None:
        yield (
            f"scales are measured on {min(count, packaged_samples())} short samples that come with trtbuild, for "
            f"a first look; quant={preset} wants {scheme.samples}: name text like your own, {OPTION}=FILE"
        )
    elif count < scheme.basis:
        yield f"quant={preset} wants {scheme.basis} samples, and compiler.calib_size={count} gives fewer"


def evaluation_text() -> str:
    """The text whose mean loss is taken, which no calibration sees unless it is given."""
    return (_DATA / "constitution.txt").read_text(encoding="utf-8")


def samples(source: Path | None, tokenizer: TextTokenizer, count: int, length: int) -> list[list[int]]:
    """Up to `count` samples of at most `length` tokens: of `source`, a file or a folder; None: of the packaged text.

    A line of a .jsonl and a row of a .parquet is a sample; a .txt is cut into samples of `length` tokens. Files are
    taken in the order of their names. Raises InputError where nothing can be read.
    """
    found: list[list[int]] = []
    for text, whole in _texts(source):
        tokens = tokenizer(text)
        pieces = (
            [tokens[:length]] if whole else [tokens[at : at + length] for at in range(0, len(tokens), length)]
        )
        found.extend(piece for piece in pieces if len(piece) > 1)
        if len(found) >= count:
            break
    if not found:
        raise InputError("there is no text in it", option=OPTION, hint=_hint())
    return found[:count]


def _texts(source: Path | None) -> Iterator[tuple[str, bool]]:
    """(text, whether it is one sample)."""
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
    """Of a .parquet, by pyarrow, which the toolchain has."""
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(path)
        column = next(name for name in _COLUMNS if name in file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=64, columns=[column]):
            yield from (str(value) for value in batch.column(0).to_pylist() if value is not None)
    except (OSError, ValueError, StopIteration):  # pyarrow's own errors are of these kinds
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
        "of such, or such a file of a dataset on the Hub, hf://datasets/org/name/file@revision"
    )
