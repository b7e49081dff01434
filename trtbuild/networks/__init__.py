"""From a checkpoint to an ONNX graph: the `network` step. Its worker is `python -m trtbuild.networks`."""

# In the step's key. Raise it with every change that alters the bytes which a checkpoint becomes.
NETWORK_VERSION = 2
