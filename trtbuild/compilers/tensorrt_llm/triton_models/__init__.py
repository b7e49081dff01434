"""The models in Python of a Triton repository, as `triton` copies them. Triton runs them; nothing here imports them."""
