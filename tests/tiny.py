"""Tiny sizes of every family, for tests: real networks, a few channels wide."""

TINY = {
    "dcgan": {"latent_dim": 6, "base_channels": 4},
}
