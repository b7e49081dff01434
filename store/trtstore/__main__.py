"""`python -m trtstore --store PATH …`."""

import sys

from trtstore.cli.main import main

sys.exit(main())
