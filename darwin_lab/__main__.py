"""`python -m darwin_lab VERB`."""

import sys

from darwin_lab.cli import main

sys.exit(main())
