"""`python -m trtstore --store PATH …`."""

import sys

from trtstore.cli.main import run_trtstore

sys.exit(run_trtstore())
