"""Dialects: how public evaluations turn the same masks into different numbers; a file each.

A dialect is a function of prediction and target, and a choice of which queries count.
docs/protocols.md has them side by side.
"""
