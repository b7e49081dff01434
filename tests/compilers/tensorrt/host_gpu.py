"""A stand-in for a GPU and for TensorRT's runtime: memory of this process, and engines that ONNX Runtime computes.

An "engine" is an ONNX file. What is exercised is our side: which shapes and addresses are set, what is copied where.
The stand-in is strict where TensorRT is: an unset address, a shape that does not match, or a second context on one
profile is an error.
"""

from __future__ import annotations

import ctypes
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

_TYPES = {"tensor(int32)": np.int32, "tensor(float)": np.float32, "tensor(float16)": np.float16}


class HostDevice:
    """`device.Device` over this process's memory."""

    stream = 7

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def zeros(self, size: int) -> int:
        self._kept.append(ctypes.create_string_buffer(size))
        return ctypes.addressof(self._kept[-1])

    def write(self, address: int, values: np.ndarray) -> None:
        assert values.flags.c_contiguous
        ctypes.memmove(address, values.ctypes.data, values.nbytes)

    def read(self, values: np.ndarray, address: int) -> None:
        ctypes.memmove(values.ctypes.data, address, values.nbytes)

    def copy_rows(self, target: int, to_pitch: int, source: int, pitch: int, width: int, rows: int) -> None:
        for row in range(rows):
            ctypes.memmove(target + row * to_pitch, source + row * pitch, width)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.shapes, self.at = engine, {}, {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream == HostDevice.stream
        return self.engine.taken(profile)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        (given,) = [each for each in self.engine.session.get_inputs() if each.name == name]
        self.shapes[name] = shape
        return len(shape) == len(given.shape)

    def set_tensor_address(self, name: str, address: int) -> None:
        self.at[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        feeds = {}
        for given in self.engine.session.get_inputs():
            shape, kind = self.shapes.get(given.name) or self.engine.fixed[given.name], _TYPES[given.type]
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            raw = ctypes.string_at(self.at[given.name], size)
            feeds[given.name] = np.frombuffer(raw, kind).reshape(shape)
        names = [each.name for each in self.engine.session.get_outputs()]
        for name, values in zip(names, self.engine.session.run(names, feeds), strict=True):
            ctypes.memmove(self.at[name], np.ascontiguousarray(values).ctypes.data, values.nbytes)
        return stream == HostDevice.stream


class Engine:
    num_layers, device_memory_size = 12, 345

    def __init__(self, model: bytes, fixed: dict[str, tuple[int, ...]]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        self.fixed = fixed
        self._profiles: set[int] = set()

    def create_execution_context(self) -> Context:
        context = Context(self)
        if 0 not in self._profiles:
            self._profiles.add(0)  # the first context has the first profile from the start
        return context

    def taken(self, profile: int) -> bool:
        new = profile not in self._profiles
        self._profiles.add(profile)
        return new

    def create_engine_inspector(self) -> Inspector:
        return Inspector()


class Inspector:
    """With the two ways in which releases name types, and a layer of which only the name is told."""

    def get_engine_information(self, form: str) -> str:
        assert form == "JSON"
        kinds = ["Row major linear FP16 format", "Half", "Row major linear FP32"]
        layers: list[Any] = [{"Outputs": [{"Name": "y", "Format/Datatype": kind}]} for kind in kinds]
        return json.dumps({"Layers": [*layers, "a name"], "Bindings": []})


def module(fixed: list[dict[str, tuple[int, ...]]]) -> Any:
    """As `import tensorrt`; `fixed` are the shapes of static engines, in the order in which they are loaded."""
    left = list(fixed)

    class Logger:
        WARNING = 2

        def __init__(self, level: int) -> None: ...

    class Runtime:
        def __init__(self, logger: Logger) -> None: ...

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            return Engine(plan, left.pop(0) if left else {}) if plan else None

    return SimpleNamespace(Logger=Logger, Runtime=Runtime, LayerInformationFormat=SimpleNamespace(JSON="JSON"))
