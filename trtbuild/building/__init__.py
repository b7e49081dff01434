"""A plan to artifacts: what is there is taken, what is not is built, checked and kept."""
