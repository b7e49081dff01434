"""What decides a result: the recipe, its key, and what is in no key."""
