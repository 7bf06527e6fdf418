"""The small pair that is timed unless told otherwise, whatever the embedded default is."""

PAIR = ("model=tiny", "data=scenes", "optim=adamw")
