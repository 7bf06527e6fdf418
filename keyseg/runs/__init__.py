"""What a run is on disk: its directory, what it was made of, and whether it can be trusted."""
