"""keyseg: an experiment-tracking ablation harness for keyword-conditioned segmentation."""
