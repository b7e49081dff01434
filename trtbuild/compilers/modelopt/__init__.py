"""NVIDIA ModelOpt: quantized checkpoints of Hugging Face's layout, which TensorRT-LLM, vLLM and SGLang load."""
