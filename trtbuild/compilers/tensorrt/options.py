"""Values of options that the steps and their worker share."""

DEFAULT_SEQUENCE = 2048  # tokens of prompt and answer, where neither the config nor the model says less
