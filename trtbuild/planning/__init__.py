"""A config to a recipe and its steps. Looks at the world, but at no store and no GPU."""
