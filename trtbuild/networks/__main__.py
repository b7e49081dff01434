"""The worker of the `network` step: `python -m trtbuild.networks request.json out/`."""

from trtbuild.worker import serve

serve("trtbuild.networks.build:run")
