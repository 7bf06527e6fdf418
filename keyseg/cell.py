"""The worker's old name, for jobs that are queued under it: `python -m keyseg.cell RUN_DIR`."""

import sys

from keyseg.worker.cell import main

if __name__ == "__main__":
    sys.exit(main())
