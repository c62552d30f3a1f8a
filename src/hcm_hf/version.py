"""The version of this package: written into every model, dataset, manifest and report it makes."""

__version__ = "0.1.0"
