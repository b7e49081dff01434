"""ONNX Runtime: `compiler` declares it; the other modules belong to its workers."""
