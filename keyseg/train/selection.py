"""Which weights of a training are kept; apart from the trainer, since a launch reads it too."""

SELECTED_BY = "giou"
"""The measure on val, teacher-forced, that is highest for the weights that a run keeps."""
