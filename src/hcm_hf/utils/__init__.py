"""Errors, files, devices, the Hub and pictures; imports nothing else of this package."""
