"""`python -m keyseg.worker RUN_DIR ...`: see keyseg/worker/cell.py."""

import sys

from keyseg.runs.text_encoding import write_any_text
from keyseg.worker.cell import main

if __name__ == "__main__":
    write_any_text()
    sys.exit(main())
