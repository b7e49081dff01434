"""Networks by onnxruntime-genai's builder, and its configuration files."""
