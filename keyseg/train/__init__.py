"""Training and evaluation of one cell: the parts wired, the losses, the loop, the test."""
