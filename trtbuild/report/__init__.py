"""Every word that a user sees: results on stdout, progress and errors on stderr."""
