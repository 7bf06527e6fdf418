"""Commands of `keyseg`, a module each, whose `register` adds it to the parser.

Heavy things are imported by the commands that need them, so that each starts in about a second.
"""
