"""What a run is on disk: its directory, where it came from, and the process that works on it."""
