"""The page that is read."""
