"""MLflow, the window on the run directories. Only this folder imports mlflow."""
