"""``python -m facemtl``: the same as the command ``facemtl``."""

import sys

from facemtl.cli import main

sys.exit(main())
