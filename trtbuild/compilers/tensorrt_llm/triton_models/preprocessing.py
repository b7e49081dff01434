"""Text to tokens, for Triton's Python backend. Written by trtbuild beside the engine that it serves.

QUERY [batch, 1] and REQUEST_OUTPUT_LEN [batch, 1] become INPUT_ID [batch, longest], padded, REQUEST_INPUT_LEN
[batch, 1] and what else a request says. Words to stop at, and such as must not be said, are [batch, 2, length]: tokens,
and where each word ends, with -1 where there are no more. Of several tokens that end an answer the engine takes one;
the others are words to stop at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from tokenizers import Tokenizer


class TritonPythonModel:
    """What Triton starts: `initialize` once, `execute` for the requests that have come in."""

    def initialize(self, args: Mapping[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        folder = Path(parameters["tokenizer_dir"]["string_value"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.ends = [int(token) for token in parameters["end_ids"]["string_value"].split(",")]
        self.pad = int(parameters["pad_id"]["string_value"])

    def execute(self, requests: Iterable[Any]) -> list[Any]:
        responses = []
        for request in requests:
            try:
                responses.append(triton.InferenceResponse(output_tensors=self._outputs(request)))
            except ValueError as error:  # of one request; the others are answered
                responses.append(triton.InferenceResponse(error=triton.TritonError(str(error))))
        return responses

    def _outputs(self, request: Any) -> list[Any]:
        tokens = [self.tokenizer.encode(text(row[0])).ids for row in given(request, "QUERY")]
        if not all(tokens):
            raise ValueError("text_input is empty, and the tokenizer has no token to begin with")
        batch, end = len(tokens), given(request, "END_ID")
        pads = filled(given(request, "PAD_ID"), batch, self.pad)
        others = self.ends[1:] if end is None else []
        longest = max(len(ids) for ids in tokens)
        rows = [[*ids, *[int(pad)] * (longest - len(ids))] for ids, (pad,) in zip(tokens, pads, strict=True)]
        made = {
            "INPUT_ID": np.array(rows, np.int32),
            "REQUEST_INPUT_LEN": np.array([[len(ids)] for ids in tokens], np.int32),
            "REQUEST_OUTPUT_LEN": given(request, "REQUEST_OUTPUT_LEN").astype(np.int32),
            "STOP_WORDS_IDS": self._words(given(request, "STOP_WORDS_DICT"), others, batch),
            "BAD_WORDS_IDS": self._words(given(request, "BAD_WORDS_DICT"), [], batch),
            "OUT_END_ID": filled(end, batch, self.ends[0]),
            "OUT_PAD_ID": pads,
        }
        return [triton.Tensor(name, value) for name, value in made.items()]

    def _words(self, lists: Any, tokens: Sequence[int], batch: int) -> Any:
        """[batch, 2, length] of the words in `lists` [batch, words], None for none, and of single `tokens`."""
        rows: list[list[list[int]]] = []
        for words in [()] * batch if lists is None else lists:
            each = [self.tokenizer.encode(text(word), add_special_tokens=False).ids for word in words if word]
            rows.append([*each, *([token] for token in tokens)])
        length = max(sum(len(ids) for ids in row) for row in rows)
        found = np.full((batch, 2, length), -1, np.int32)
        found[:, 0] = 0
        for at, row in enumerate(rows):
            ids = list(chain(*row))
            found[at, 0, : len(ids)] = ids
            found[at, 1, : len(row)] = np.cumsum([len(each) for each in row])
        return found


def given(request: Any, name: str) -> Any:
    """The array of an input, None where the request does not have it."""
    tensor = triton.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def filled(values: Any, batch: int, default: int) -> Any:
    """`values`, or [batch, 1] of the default."""
    return np.full((batch, 1), default, np.int32) if values is None else values.astype(np.int32)


def text(value: bytes | str) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
