"""Python models that `triton` copies into a Triton repository. Triton runs them; nothing here imports them."""
