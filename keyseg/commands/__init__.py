"""Commands of `keyseg`, one module each; `register` adds a command to the parser."""
