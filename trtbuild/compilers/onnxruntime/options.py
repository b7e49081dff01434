"""Values of options that the steps and their worker share."""

DEFAULT_GROUP = 32  # the block of onnxruntime-genai's own builder: best quality, and as fast as larger ones
GROUPS = (16, 32, 64, 128, 256)  # powers of two from 16 on; MatMulNBits has no kernel of its own for more
ACCURACY_LEVELS = (0, 1, 2, 3, 4)  # MatMulNBits' own numbers
