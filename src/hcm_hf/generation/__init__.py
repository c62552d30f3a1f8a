"""Images, volumes and datasets from a pipeline, on disk."""
