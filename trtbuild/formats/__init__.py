"""Headers of weight files, for all that read them."""
