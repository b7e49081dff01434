"""Values of options that the steps and their workers share."""

DEFAULT_SEQUENCE = 2048  # tokens of prompt and answer, where neither the config nor the model says less
LEVELS = {"x86_64_v3": 256, "x86_64_v4": 512}  # of CPUs -> bits of their vectors
GROUPS = (32, 64, 128, 256)  # of 4-bit weights: those that PyTorch's kernels have
DEFAULT_GROUP = 32
FP8_FROM = (8, 9)
