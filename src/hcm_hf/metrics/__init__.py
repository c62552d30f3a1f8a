"""Metrics: pure functions on arrays that load no files and choose no device."""
