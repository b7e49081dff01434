"""How trtbuild starts other programs, and how they end."""
