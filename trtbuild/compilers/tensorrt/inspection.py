"""A summary of what TensorRT's engine inspector reports."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from trtbuild import untrusted

_TYPE = re.compile(r"\b(FP32|FP16|BF16|FP8|FP4|INT64|INT32|INT8|INT4|UINT8|BOOL|Half|Float|Int8|Int32|Bool)\b")
_OTHER_NAMES = {"Half": "FP16", "Float": "FP32", "Int8": "INT8", "Int32": "INT32", "Bool": "BOOL"}


def precisions(report: str) -> dict[str, int]:
    """Type of a layer's first output -> number of layers, from the inspector's JSON; empty if it holds only names.

    A layer with details is an object whose `Outputs` have a `Format/Datatype`, such as "Row major linear FP16 format"
    (release 8) or "Half" (10): NVIDIA's documentation of IEngineInspector.
    """
    try:
        layers = untrusted.parse(report)["Layers"] or []
    except (ValueError, KeyError, TypeError):
        return {}
    counts = Counter(_type(layer) for layer in layers if isinstance(layer, dict))
    return {name: count for name, count in sorted(counts.items()) if name}


def _type(layer: dict[str, Any]) -> str:
    for output in layer.get("Outputs") or []:
        match = _TYPE.search(str(output.get("Format/Datatype", "")))
        if match is not None:
            return _OTHER_NAMES.get(match[1], match[1])
    return ""
