"""The VAE's losses: the study's evidence lower bound, and the tuned one with a fitted variance and prior."""

import copy
import math
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from hcm_hf.data.augmentation import augment_batch
from hcm_hf.data.slices import SliceBatch
from hcm_hf.models import VAE, MixtureVAE
from hcm_hf.pipelines.latent import LatentPipeline
from hcm_hf.training.objectives.base import Objective


LEAST_VARIANCE = (2 / 255) ** 2 / 12  # what rounding to 8 bits makes of pixels in [-1, 1]


class VariationalAutoencoder(Objective):
    """The negative evidence lower bound, https://huggingface.co/papers/1312.6114 (equation 3 there and in the study).

    Args:
        vae: encodes images to moments and decodes latents to images.
    """

    sampled = "vae"

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = vae

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Descend the bound with one latent drawn for each image (equation 10)."""
        yield "vae", self.loss(batch.images, batch.draw(self.vae.sample_latents))

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """The same at fixed noise; in nats per image."""
        noise = self.vae.sample_latents(len(batch), torch.Generator().manual_seed(0))
        return self.loss(batch.images, noise)

    def loss(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Mean negative evidence lower bound of images (B, 1, H, W) at noise (B, latent_dim), in nats."""
        mean, log_variance = (moment.float() for moment in self.vae.encode(images))
        reconstructions = self.vae.decode(mean + noise * torch.exp(log_variance / 2))
        return (gaussian_nll(reconstructions, images) + kl_divergence(mean, log_variance)).mean()

    def pipeline(self) -> LatentPipeline:
        """The VAE as a pipeline; `pipeline.network` encodes too."""
        return LatentPipeline(self.vae)


class SigmaVAE(VariationalAutoencoder):
    """The evidence lower bound with the decoder's most likely variance and a prior fitted to the posteriors.

    The variance of the Gaussian decoder is the one under which the slices are most likely, their mean squared error
    (https://huggingface.co/papers/2006.13202); in training that of the batches so far, so that the loss is a mean over
    slices. The divergence grows from nothing to its full weight. Latents are sampled from a mixture of Gaussians,
    fitted to the posteriors of the latest slices (https://huggingface.co/papers/1903.12436), as these fill a small
    part of N(0, 1).

    Args:
        vae: encodes images to moments, decodes latents to images and holds the mixture.
        warmup_steps: number of batches until the divergence has its full weight.
        augmentation: 1 for the full range of `augment`, 0 for none.
        shrinkage: shrinkage of `fit_mixture`, in slices.
        num_posteriors: number of latest slices that the mixture is fitted to.
    """

    vae: MixtureVAE
    variance: torch.Tensor
    num_batches: torch.Tensor
    num_seen: torch.Tensor
    posterior_means: torch.Tensor
    posterior_log_variances: torch.Tensor

    def __init__(
        self,
        vae: MixtureVAE,
        warmup_steps: int,
        augmentation: float = 0.0,
        shrinkage: float = 128.0,
        num_posteriors: int = 512,
    ):
        super().__init__(vae)
        self.warmup_steps = warmup_steps
        self.augmentation = augmentation
        self.shrinkage = shrinkage
        latent_dim = vae.config.latent_dim
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("num_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("posterior_means", torch.zeros(num_posteriors, latent_dim))
        self.register_buffer("posterior_log_variances", torch.zeros(num_posteriors, latent_dim))

    def losses(self, batch: SliceBatch) -> Iterator[tuple[str, torch.Tensor]]:
        """Descend the bound at the variance of the batches so far, with one latent drawn for each image."""
        images, device = batch.images, batch.images.device
        if self.augmentation > 0:
            images, _ = augment_batch(batch, self.augmentation)
        noise = batch.draw(lambda n: torch.randn(n, self.vae.config.latent_dim, device=device))
        error, mean, log_variance = self.code(images, noise)
        nll = image_nll(error, self.variance, images[0].numel())
        yield "vae", nll + self.kl_weight() * kl_divergence(mean, log_variance).mean()
        self.remember(batch.whole(error[None]).mean(), batch.whole(mean), batch.whole(log_variance))

    def validation_loss(self, batch: SliceBatch) -> torch.Tensor:
        """The negative bound at fixed noise, the slices' own variance and the full divergence; in nats per image."""
        noise = torch.randn(len(batch), self.vae.config.latent_dim, generator=torch.Generator().manual_seed(0))
        error, mean, log_variance = self.code(batch.images, noise.to(batch.images))
        nll = image_nll(error, error.clamp(min=LEAST_VARIANCE), batch.images[0].numel())
        return nll + kl_divergence(mean, log_variance).mean()

    def code(self, images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images (B, 1, H, W) through a latent each, at noise (B, latent_dim).

        The mean squared error of a pixel, and mean and log-variance of the latents, (B, latent_dim).
        """
        mean, log_variance = (moment.float() for moment in self.vae.encode(images))
        reconstructions = self.vae.decode(mean + noise * torch.exp(log_variance / 2))
        return (images - reconstructions.float()).square().mean(), mean, log_variance

    def kl_weight(self) -> torch.Tensor:
        """The weight of the divergence in [0, 1], a scalar, by the number of batches so far."""
        return (self.num_batches / max(self.warmup_steps, 1)).clamp(max=1)

    @torch.no_grad()
    def remember(self, error: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor) -> None:
        """Update the variance and the stored posteriors with a whole batch's results of `code`."""
        self.num_batches += 1
        self.variance.lerp_(error.clamp(min=LEAST_VARIANCE), (1 / self.num_batches).clamp(min=0.1))
        self.num_seen += len(mean)
        kept = min(len(mean), len(self.posterior_means))
        places = (self.num_seen - kept + torch.arange(kept, device=mean.device)) % len(self.posterior_means)
        self.posterior_means[places] = mean[-kept:]
        self.posterior_log_variances[places] = log_variance[-kept:]

    @torch.no_grad()
    def pipeline(self) -> LatentPipeline:
        """A copy of the VAE as a pipeline, its mixture fitted to the latest posteriors."""
        known = min(int(self.num_seen), len(self.posterior_means))
        # N(0, 1), to which training draws the posteriors, is one more: all there is before the first batch.
        means, log_variances = (
            torch.cat([moment[:known], torch.zeros_like(moment[:1])])
            for moment in (self.posterior_means, self.posterior_log_variances)
        )
        vae = copy.deepcopy(self.vae)
        vae.set_prior(*fit_mixture(means, log_variances.exp(), vae.config.num_components, self.shrinkage))
        return LatentPipeline(vae)


def image_nll(error: torch.Tensor, variance: torch.Tensor, num_pixels: int) -> torch.Tensor:
    """-log of the Gaussian density of an image with this mean squared error of a pixel, in nats.

    It is lowest where the variance is the error itself: num_pixels / 2 (log(2 pi error) + 1).
    """
    return num_pixels / 2 * (math.log(2 * math.pi) + variance.log() + error / variance)


def fit_mixture(
    means: torch.Tensor, variances: torch.Tensor, num_components: int, shrinkage: float, num_iterations: int = 20
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fit a mixture of Gaussians to points that are Gaussians themselves, by expectation and maximisation.

    It ascends the mean of E[log p(z)] over the points. Deterministic, in double precision on the CPU. It begins with
    parts of equal number along the direction of the largest variance. Covariances are drawn to that of N(0, 1), as if
    each component had seen `shrinkage` points, above 0, of it about its mean: none is narrow, and few points are not
    copied. The means (N, D) and the variances (N, D), above 0 along each axis, are those of the points, one or more.

    Returns:
        Weights (K,), means (K, D) and lower Cholesky factors of the covariances (K, D, D), in float64.
    """
    means, variances = means.double().cpu(), variances.double().cpu()
    number, dim = means.shape
    identity, overall = torch.eye(dim).double(), means.mean(0)
    _, _, directions = torch.linalg.svd(means - overall, full_matrices=False)
    rank = torch.argsort(torch.argsort(means @ directions[0], stable=True))
    shares = F.one_hot(rank * num_components // number, num_components).double()  # (N, K)
    for _ in range(num_iterations):
        counts = shares.sum(0)  # (K,)
        weights = (counts + 1) / (number + num_components)
        centres = (shares.T @ means + overall) / (counts[:, None] + 1)  # (K, D); one point more, at the mean of all
        offsets = means - centres[:, None]  # (K, N, D)
        scatters = (shares.T[:, None] * offsets.mT) @ offsets + torch.diag_embed(shares.T @ variances)  # (K, D, D)
        factors = torch.linalg.cholesky((scatters + shrinkage * identity) / (counts + shrinkage)[:, None, None])
        inverses = torch.linalg.solve_triangular(factors, identity, upper=False)  # of the factors
        distances = (offsets @ inverses.mT).square().sum(2) + inverses.square().sum(1) @ variances.T  # (K, N)
        log_determinants = 2 * factors.diagonal(dim1=1, dim2=2).log().sum(1)
        shares = (weights.log() - (distances.T + log_determinants) / 2).softmax(1)
    return weights, centres, factors


def gaussian_nll(means: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """-log N(x; mean, 1) of images (B, 1, H, W), summed over pixels: (B,), in nats."""
    return ((images - means).square() + math.log(2 * math.pi)).sum((1, 2, 3)) / 2


def kl_divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, variance) || N(0, 1)) of moments (B, latent_dim), summed over dimensions: (B,), in nats (its B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
