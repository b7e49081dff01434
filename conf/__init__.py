"""The configs that ship with trtbuild; Hydra finds them as `pkg://trtbuild.conf`."""
