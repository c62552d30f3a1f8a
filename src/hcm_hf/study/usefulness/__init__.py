"""Do synthetic slices help? Networks trained on few patients with and without them, measured on held-out patients."""
