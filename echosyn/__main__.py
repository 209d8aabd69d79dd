"""python -m echosyn: the command `echosyn`."""

import sys

from echosyn.cli import main

sys.exit(main())
