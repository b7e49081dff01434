"""Text to tokens, for Triton's Python backend. Written by trtbuild beside the engine that it serves.

QUERY [batch, 1] and REQUEST_OUTPUT_LEN [batch, 1] become INPUT_ID [batch, longest], padded, REQUEST_INPUT_LEN
[batch, 1], and the other inputs of the engine. Stop words and bad words are [batch, 2, length]: their tokens, and where
each word ends, padded with -1. If several tokens end an answer, the engine takes one; the others become stop words.
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
    """The class that Triton runs: `initialize` once, `execute` for each batch of requests."""

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
            except ValueError as error:  # fails this request; the others are answered
                responses.append(triton.InferenceResponse(error=triton.TritonError(str(error))))
        return responses

    def _outputs(self, request: Any) -> list[Any]:
        tokens = [self.tokenizer.encode(text(row[0])).ids for row in input_array(request, "QUERY")]
        if not all(tokens):
            raise ValueError("text_input is empty, and the tokenizer has no token to begin with")
        batch, end = len(tokens), input_array(request, "END_ID")
        pads = filled(input_array(request, "PAD_ID"), batch, self.pad)
        others = self.ends[1:] if end is None else []
        longest = max(len(ids) for ids in tokens)
        rows = [[*ids, *[int(pad)] * (longest - len(ids))] for ids, (pad,) in zip(tokens, pads, strict=True)]
        outputs = {
            "INPUT_ID": np.array(rows, np.int32),
            "REQUEST_INPUT_LEN": np.array([[len(ids)] for ids in tokens], np.int32),
            "REQUEST_OUTPUT_LEN": input_array(request, "REQUEST_OUTPUT_LEN").astype(np.int32),
            "STOP_WORDS_IDS": self._words(input_array(request, "STOP_WORDS_DICT"), others, batch),
            "BAD_WORDS_IDS": self._words(input_array(request, "BAD_WORDS_DICT"), [], batch),
            "OUT_END_ID": filled(end, batch, self.ends[0]),
            "OUT_PAD_ID": pads,
        }
        return [triton.Tensor(name, value) for name, value in outputs.items()]

    def _words(self, lists: Any, tokens: Sequence[int], batch: int) -> Any:
        """Words as [batch, 2, length]: those of `lists` [batch, words] or None, and each of `tokens` as a word."""
        rows: list[list[list[int]]] = []
        for words in [()] * batch if lists is None else lists:
            encoded = [self.tokenizer.encode(text(word), add_special_tokens=False).ids for word in words if word]
            rows.append([*encoded, *([token] for token in tokens)])
        length = max(sum(len(ids) for ids in row) for row in rows)
        encoding = np.full((batch, 2, length), -1, np.int32)
        encoding[:, 0] = 0
        for at, row in enumerate(rows):
            ids = list(chain(*row))
            encoding[at, 0, : len(ids)] = ids
            encoding[at, 1, : len(row)] = np.cumsum([len(word) for word in row])
        return encoding


def input_array(request: Any, name: str) -> Any:
    """The array of an input; None if the request does not have it."""
    tensor = triton.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def filled(values: Any, batch: int, default: int) -> Any:
    """`values` as int32, or [batch, 1] of the default for None."""
    return np.full((batch, 1), default, np.int32) if values is None else values.astype(np.int32)


def text(value: bytes | str) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
