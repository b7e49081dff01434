"""`python -m trtstore --store PATH …`."""

import sys

from trtstore.cli import main

sys.exit(main())
