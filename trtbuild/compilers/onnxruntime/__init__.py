"""ONNX Runtime: `compiler` declares it, the other modules are its workers'."""
