"""The networks: tensors in, tensors out."""

from hcm_hf.models.dcgan import DCGANDiscriminator, DCGANGenerator
from hcm_hf.models.latent import LatentModel


# The networks that make images from latents, by the name that a saved pipeline records.
LATENT_MODELS: dict[str, type[LatentModel]] = {model.__name__: model for model in (DCGANGenerator,)}

__all__ = ["LATENT_MODELS", "DCGANDiscriminator", "DCGANGenerator", "LatentModel"]
