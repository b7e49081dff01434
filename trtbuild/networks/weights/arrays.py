"""The type of numpy's arrays, for those that read neither ONNX nor GGUF."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
