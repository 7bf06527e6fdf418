"""MLflow, the window on the run directories. Nothing outside this folder imports it."""
