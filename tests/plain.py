"""The small pair that most tests compose and train, whatever the default is."""

PLAIN = ("model=tiny", "data=scenes", "optim=adamw")
