"""The values of options that have a few, for the steps and for their worker."""

DEFAULT_GROUP = 32  # the block of onnxruntime-genai's own builder: best quality, and as fast as larger ones
GROUPS = (16, 32, 64, 128, 256)  # powers of two from 16 on; MatMulNBits has no kernel of its own for more
ACCURACY_LEVELS = (0, 1, 2, 3, 4)  # MatMulNBits' own numbers
