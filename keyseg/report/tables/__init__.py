"""Tables of a report, and their files."""
