"""The process that works on cells: `python -m keyseg.worker RUN_DIR ...`."""
