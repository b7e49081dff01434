"""What `trtstore show` says of records: ours in words, all others as they are."""

from __future__ import annotations

from typing import Any

import pytest

from trtbuild.report.records import lines
from trtstore import Record

ENGINE = {
    "compiler": "tensorrt",
    "release": "8.6.0",
    "compute_capability": "9.0",
    "dtype": "float16",
    "weights": "none",
    "group_size": None,
    "limits": {"max_batch_size": 1, "max_input_len": 64, "max_seq_len": 256},
    "engines": [
        {
            "file": "decode.engine",
            "network_layers": 900,
            "phases": [{"name": "decode", "batch": [1, 1, 1], "tokens": [1, 1, 1], "past": [255, 255, 255]}],
            "inputs": [{"name": "input_ids", "dtype": "int32", "shape": [1, 1]}],
            "outputs": [{"name": "logits", "dtype": "float16", "shape": [1, 1, 96]}],
        }
    ],
}
CHECK = {
    "load_seconds": 0.5,
    "tokens": 16,
    "tokens_per_second": 296.2,
    "engines": [
        {
            "file": "decode.engine",
            "layers": 5,
            "scratch_bytes": 2_000_000,
            "precisions": {"FP16": 4, "FP32": 1},
        }
    ],
}


def record(**predicate: Any) -> Record:
    return Record("ab" * 32, f"sha256:{'cd' * 32}", {}, 1, 1, {}, "p", predicate)


def test_an_executed_engine_is_told_as_it_was_loaded() -> None:
    said = lines(record(trtbuild_check=CHECK, trtbuild_facts={"engine": ENGINE}))
    assert said == [
        "executed yes: loads in 0.50 s, 16 tokens at 296 tokens/s",
        "engine   tensorrt 8.6.0, float16, for compute capability 9.0",
        "limits   sequences 1, tokens of a prompt 64, of prompt and answer 256",
        "file     decode.engine: 900 layers in the network, 5 in the engine, by their outputs 4 FP16, 1 FP32, "
        "2 MB of scratch memory",
        "         profile decode: batch 1, tokens 1, past 255",
        "         inputs input_ids int32 [1 x 1]",
        "         outputs logits float16 [1 x 1 x 96]",
    ]


@pytest.mark.parametrize(
    "predicate",
    [
        {},
        {"trtbuild_stats": {"seconds": 1}},
        {"trtbuild_check": {"executed": False}},
        {"trtbuild_check": "no"},
        {"trtbuild_facts": {"engine": {}}},
        {"trtbuild_facts": {"engine": {**ENGINE, "limits": None}}},
        {"trtbuild_facts": {"engine": {**ENGINE, "engines": [1]}}},
        {"trtbuild_facts": {"engine": ENGINE}, "trtbuild_check": {"engines": 3}},
        {"trtbuild_facts": []},
    ],
)
def test_records_of_another_form_are_shown_without_words(predicate: dict[str, Any]) -> None:
    assert lines(record(**predicate)) == []
