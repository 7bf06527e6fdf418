"""The small pair that most tests compose and train, whatever the default is."""

from collections.abc import Sequence

PLAIN = ("model=tiny", "data=scenes", "optim=adamw")


def plain_for(overrides: Sequence[str]) -> tuple[str, ...]:
    """`PLAIN`, but where a sweep's file says what is trained on what."""
    return () if any(o.startswith("+sweeps=") for o in overrides) else PLAIN
