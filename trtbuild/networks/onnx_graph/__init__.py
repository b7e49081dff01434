"""An architecture and its tensors to an ONNX graph."""
