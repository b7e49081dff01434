"""What Triton is to the files of a model repository: its Python backend, and the schema of a config.pbtxt.

The schema holds the names of model_config.proto (github.com/triton-inference-server/common, release 2.60) that are used
here: a name that is not among them, or a value of another type, is an error of protobuf's own parser.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, text_format

_ONE, _MANY = (
    descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
)
_TYPES = {
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
}
_ENUMS = {
    "DataType": (
        "TYPE_INVALID",
        "TYPE_BOOL",
        "TYPE_INT32",
        "TYPE_INT64",
        "TYPE_UINT64",
        "TYPE_FP16",
        "TYPE_FP32",
        "TYPE_STRING",
    ),
    "Kind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU"),
}
#: message -> field -> its type, `*` before a repeated one
_MESSAGES = {
    "Shape": {"shape": "*int64"},
    "Tensor": {
        "name": "string",
        "data_type": "DataType",
        "dims": "*int64",
        "reshape": "Shape",
        "optional": "bool",
        "allow_ragged_batch": "bool",
    },
    "Group": {"count": "int32", "kind": "Kind"},
    "Pair": {"key": "string", "value": "string"},
    "Policy": {"decoupled": "bool"},
    "Queue": {"max_queue_size": "int32"},
    "Batching": {
        "preferred_batch_size": "*int32",
        "max_queue_delay_microseconds": "uint64",
        "default_queue_policy": "Queue",
    },
    "Step": {"model_name": "string", "model_version": "int64", "input_map": "*Pair", "output_map": "*Pair"},
    "Steps": {"step": "*Step"},
    "Value": {"string_value": "string"},
    "Parameter": {"key": "string", "value": "Value"},
    "ModelConfig": {
        "name": "string",
        "backend": "string",
        "platform": "string",
        "max_batch_size": "int32",
        "model_transaction_policy": "Policy",
        "dynamic_batching": "Batching",
        "input": "*Tensor",
        "output": "*Tensor",
        "instance_group": "*Group",
        "parameters": "*Parameter",
        "ensemble_scheduling": "Steps",
    },
}


def _schema() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="triton", syntax="proto3")
    for name, values in _ENUMS.items():
        made = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            made.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (each, kind) in enumerate(fields.items(), 1):
            plain = kind.removeprefix("*")
            made = message.field.add(name=each, number=number, label=_MANY if plain != kind else _ONE)
            if plain in _TYPES:
                made.type = _TYPES[plain]
            else:
                made.type = made.TYPE_ENUM if plain in _ENUMS else made.TYPE_MESSAGE
                made.type_name = f".triton.{plain}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("triton.ModelConfig"))


def config(path: Path) -> dict[str, Any]:
    """A config.pbtxt as JSON. Raises what protobuf does where it is none."""
    message = text_format.Parse(path.read_text(), _schema()())
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


@dataclass(frozen=True)
class Tensor:
    name: str
    array: Any

    def as_numpy(self) -> Any:
        return self.array


@dataclass(frozen=True)
class InferenceResponse:
    output_tensors: list[Tensor] = field(default_factory=list)
    error: Exception | None = None


@contextmanager
def model(folder: Path) -> Iterator[Any]:
    """The model in Python of a repository, started as Triton's backend starts it: call it with arrays by name."""
    utilities = types.ModuleType("triton_python_backend_utils")
    utilities.Tensor, utilities.InferenceResponse, utilities.TritonError = (
        Tensor,
        InferenceResponse,
        RuntimeError,
    )
    utilities.get_input_tensor_by_name = lambda request, name: request.get(name)
    sys.modules[utilities.__name__] = utilities
    try:
        spec = importlib.util.spec_from_file_location(f"model_of_{folder.name}", folder / "1" / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        started = module.TritonPythonModel()
        told = config(folder / "config.pbtxt")
        parameters = {each["key"]: each["value"] for each in told["parameters"]}
        started.initialize({"model_config": json.dumps({**told, "parameters": parameters})})

        def execute(**inputs: Any) -> dict[str, Any]:
            known = {each["name"]: each for each in told["input"]}
            assert inputs.keys() <= known.keys()
            assert all(name in inputs or each.get("optional") for name, each in known.items())
            (response,) = started.execute([{name: Tensor(name, np.array(value)) for name, value in inputs.items()}])
            if response.error is not None:
                raise response.error
            made = {tensor.name: tensor.array for tensor in response.output_tensors}
            for each in told["output"]:
                assert made[each["name"]].ndim == len(each["dims"]) + 1  # the batch
            return made

        yield execute
    finally:
        del sys.modules[utilities.__name__]
