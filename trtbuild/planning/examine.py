"""Checks a checkpoint's headers and small files before anything is installed, downloaded or built.

The workers raise the same errors: they read the same headers with the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trtbuild.compilers.base import ModelRules
from trtbuild.errors import InputError
from trtbuild.formats.gguf import GgufHeader
from trtbuild.networks.chat import template
from trtbuild.networks.config import architectures
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.gguf import beside
from trtbuild.networks.gguf import config as gguf_config
from trtbuild.networks.tokenizer import files as tokenizer_files
from trtbuild.networks.tokenizer import gguf, special_tokens
from trtbuild.networks.weights import as_transformers, layout, naming
from trtbuild.sources import Source

_WEIGHTS = (".safetensors", ".gguf")


def examine(source: Source, rules: ModelRules) -> tuple[str, ...]:
    """Notes on the checkpoint, as sentences: what has no effect, what is unknown, and what the user must decide.

    Raises InputError if no engine of it can be right. Reads headers and small files, but no weights. The workers check
    what is unknown before the download.
    """
    config, header = source.config(), source.gguf_header()
    if config is None and header is not None:
        config = gguf_config.config_from_gguf(header.metadata, header.tensors)
        if (factors := header.tensors.get(naming.ROPE_FACTORS)) is not None:
            gguf_config.check_factors(factors.shape, config)
    if config is None:
        return ()
    if rules.transformers and header is None and (headers := source.headers()) is not None:
        as_transformers.check(headers.files, config)
    if not rules.networks:
        return ()
    names = [file.path for file in source.files() if not file.path.endswith(_WEIGHTS)]
    files, metadata = source.small(names), source.gguf_metadata()
    check = rules.check_decoder
    notes = [] if check is None else list(_of_weights(source, config, header, check))
    tokenizer = _checked_tokenizer(files, metadata)
    template.check(files, config, metadata)
    return (*notes, *rules.tokenizer_notes(tokenizer))


def _checked_tokenizer(files: Mapping[str, bytes], metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The content of tokenizer.json, or what a GGUF's metadata convert to. Raises InputError."""
    if metadata is not None and "tokenizer.json" not in files:
        return gguf.convert(metadata).tokenizer
    tokenizer_files.check(files)
    content = special_tokens.read_object(files, "tokenizer.json")
    if metadata is not None:
        beside.check(content, metadata)
    return content


def correct_tied_embeddings(source: Source, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`config` with `tie_word_embeddings` as the tensors have it: false if a head is stored beside the embedding.

    Raises InputError if the headers cannot be read: a key must not depend on whether a server answers.
    """
    if not config.get("tie_word_embeddings"):
        return config
    settled = _settled(source, config)
    if settled is None:
        raise InputError(
            "the headers of the weight files cannot be read, and they say whether the model has a head of its own",
            option="model.source",
            hint="try again once the Hub answers, or name a local copy",
        )
    return settled.config(config)


def _of_weights(
    source: Source, config: Mapping[str, Any], header: GgufHeader | None, check: Callable[[Decoder], None]
) -> Iterator[str]:
    """Notes on the config and the tensors. Raises InputError, also what the compiler's `check` raises."""
    yield from (architectures.audit(config) if header is None else gguf_config.audit(header.metadata, header.tensors))
    check(architectures.parse(config))
    settled = _settled(source, config)
    if settled is not None:
        layout.check(settled, architectures.parse(settled.config(config)))
        yield from naming.notes(settled.ignored)


def _settled(source: Source, config: Mapping[str, Any]) -> naming.NamedTensors | None:
    headers = source.headers()
    return None if headers is None else naming.settle(headers.files, headers.index, config)
