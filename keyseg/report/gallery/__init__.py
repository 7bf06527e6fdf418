"""Pictures of examples."""
