"""NVIDIA ModelOpt: quantized checkpoints in Hugging Face's layout, which TensorRT-LLM, vLLM and SGLang load."""
