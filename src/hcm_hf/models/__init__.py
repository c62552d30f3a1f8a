"""The networks: tensors in, tensors out."""

from hcm_hf.models.acgan import ACGANDiscriminator, ACGANGenerator
from hcm_hf.models.dcgan import DCGANDiscriminator, DCGANGenerator
from hcm_hf.models.encoder import EncoderOutput, SliceEncoder
from hcm_hf.models.gan import GANDiscriminator, GANGenerator
from hcm_hf.models.infogan import InfoGANDiscriminator, InfoGANGenerator
from hcm_hf.models.latent import LatentModel
from hcm_hf.models.paired_acgan import PairedACGANDiscriminator, PairedACGANGenerator
from hcm_hf.models.vae import VAE, MixtureVAE


# The networks that make images from latents, by the name that a saved pipeline records.
LATENT_MODELS: dict[str, type[LatentModel]] = {
    model.__name__: model
    for model in (VAE, MixtureVAE, GANGenerator, DCGANGenerator, ACGANGenerator, InfoGANGenerator)
}

__all__ = [
    "LATENT_MODELS",
    "VAE",
    "ACGANDiscriminator",
    "ACGANGenerator",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "EncoderOutput",
    "GANDiscriminator",
    "GANGenerator",
    "InfoGANDiscriminator",
    "InfoGANGenerator",
    "LatentModel",
    "MixtureVAE",
    "PairedACGANDiscriminator",
    "PairedACGANGenerator",
    "SliceEncoder",
]
