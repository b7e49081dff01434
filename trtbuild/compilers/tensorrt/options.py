"""What the steps and their worker both know of the options."""

DEFAULT_SEQUENCE = 2048  # tokens of prompt and answer, where neither the config nor the model says less
