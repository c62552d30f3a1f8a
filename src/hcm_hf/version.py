"""The version of this package, written into all that it makes, and where its source is found."""

__version__ = "0.1.0"
# The one place to change when the source gets its public address: messages and cards take it from here, and a test
# holds the files that cannot (setup.cfg, CITATION.cff, the Spaces, the metric) to it.
SOURCE_URL = "https://github.com/hcm-hf/hcm-hf"
INSTALL = f'pip install "hcm_hf @ git+{SOURCE_URL}"'
