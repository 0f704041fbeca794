"""`python -m lumiqtrace` is the command `lumiqtrace`."""

import sys

from .cli import main

sys.exit(main())
