"""Words of a command line and config files to checked options."""
