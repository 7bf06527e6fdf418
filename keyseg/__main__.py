"""`python -m keyseg` is `keyseg`."""

from keyseg.cli import main

main()
