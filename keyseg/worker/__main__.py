"""`python -m keyseg.worker RUN_DIR ...`: see keyseg/worker/cell.py."""

import sys

from keyseg.worker.cell import main

if __name__ == "__main__":
    sys.exit(main())
