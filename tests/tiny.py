"""Small things that several tests share."""

import numpy as np

from hcm_hf.families import FAMILIES


# Tiny sizes of every family: real networks, a few channels wide.
TINY = {
    "vae": {"latent_dim": 6, "base_channels": 4},
    "gan": {"latent_dim": 6, "hidden_dim": 16, "num_maxout_units": 8},
    "dcgan": {"latent_dim": 6, "base_channels": 4},
    "acgan": {"latent_dim": 6, "generator_channels": 4, "discriminator_channels": 4},
    "infogan": {"latent_dim": 9, "num_categories": 3, "base_channels": 4, "hidden_dim": 8},
    "ddpm": {"block_out_channels": (4, 8)},
}


def random_images(n: int, seed: int = 0, height: int = 33, width: int = 40) -> np.ndarray:
    """Grainy, smooth, saturated and half-flat images."""
    generator = np.random.default_rng(seed)
    images = generator.random((n, height, width))
    images[1::4] = 0.4 + 0.2 * images[1::4].cumsum(1) / height
    images[2::4] = (images[2::4] * 4 - 1.5).clip(0, 1)
    images[3::4, : height // 2] = 0
    return images.astype(np.float32)


def build_tiny(family: str):
    """A family's objective at its tiny size, 16 pixels, with its paper's losses."""
    return FAMILIES[family].build(16, **FAMILIES[family].recipes["paper"].objective | TINY[family])
