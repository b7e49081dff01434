"""The files of a tokenizer in a checkpoint: which there are, and which must be there.

Standard library only: the command line asks before any weight is downloaded.
"""

from __future__ import annotations

from collections.abc import Collection

from trtbuild.errors import InputError

#: Files that are copied to where a tokenizer is read.
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)
NEEDED = ("tokenizer.json", "tokenizer_config.json")


def check(files: Collection[str]) -> None:
    """Raises InputError when one of `NEEDED` is not among the names `files`."""
    for name in NEEDED:
        if name not in files:
            raise InputError(
                f"the checkpoint has no {name}, so nothing could turn text into its tokens",
                option="model.source",
                hint="transformers writes it: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
            )
