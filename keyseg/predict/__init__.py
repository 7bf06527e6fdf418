"""A trained model beyond its sweep: predictions on any image, exports, the MLflow model."""
