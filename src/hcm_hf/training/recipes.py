"""The families: what builds each one and the recipes that it is trained with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hcm_hf.data.acdc import AXES, GROUPS, PHASES, STRUCTURES
from hcm_hf.models import (
    VAE,
    ACGANDiscriminator,
    ACGANGenerator,
    DCGANDiscriminator,
    DCGANGenerator,
    GANDiscriminator,
    GANGenerator,
    InfoGANDiscriminator,
    InfoGANGenerator,
    MixtureVAE,
    SliceEncoder,
)
from hcm_hf.models.paired import build_paired_scheduler, build_paired_unet
from hcm_hf.models.unet import build_scheduler, build_unet
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.conditions import count_labels
from hcm_hf.pipelines.paired import PairedDDPMPipeline
from hcm_hf.training.config import Recipe
from hcm_hf.training.objectives.distillation import MomentMatching, ProgressiveDistillation
from hcm_hf.training.objectives.paired import PairedDiffusion
from hcm_hf.training.objectives.sigma_vae import SigmaVAE
from hcm_hf.training.objectives.study import (
    ACGAN,
    GAN,
    Diffusion,
    Game,
    InfoGAN,
    Objective,
    SliceRecognition,
    VariationalAutoencoder,
)
from hcm_hf.utils.errors import InputError


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        paper: where it was introduced.
        recipes: its networks, losses and settings by name.
    """

    paper: str
    recipes: dict[str, Recipe]


def build_vae(sample_size: int, latent_dim: int = 64, base_channels: int = 32) -> VariationalAutoencoder:
    """The convolutional VAE and its evidence lower bound."""
    return VariationalAutoencoder(VAE(sample_size, latent_dim, base_channels))


def build_sigma_vae(
    sample_size: int,
    warmup_steps: int,
    augmentation: float,
    num_components: int,
    shrinkage: float,
    latent_dim: int = 64,
    base_channels: int = 32,
) -> SigmaVAE:
    """The convolutional VAE with a mixture for a prior, and the bound at the decoder's most likely variance."""
    vae = MixtureVAE(sample_size, latent_dim, base_channels, num_components)
    return SigmaVAE(vae, warmup_steps, augmentation, shrinkage)


def build_gan(
    sample_size: int,
    label_smoothing: float,
    penalty_per_pixel: float,
    penalty_interval: int = 1,
    augmentation: float = 0.0,
    latent_dim: int = 100,
    hidden_dim: int = 1200,
    num_maxout_units: int = 240,
) -> GAN:
    """The fully connected networks in the minimax game."""
    return GAN(
        GANGenerator(sample_size, latent_dim, hidden_dim),
        GANDiscriminator(sample_size, num_maxout_units),
        Game(label_smoothing, penalty_per_pixel, penalty_interval, augmentation),
    )


def build_dcgan(
    sample_size: int,
    label_smoothing: float,
    penalty_per_pixel: float,
    penalty_interval: int = 1,
    augmentation: float = 0.0,
    latent_dim: int = 100,
    base_channels: int = 64,
) -> GAN:
    """The DCGAN networks in the minimax game."""
    return GAN(
        DCGANGenerator(sample_size, latent_dim, base_channels),
        DCGANDiscriminator(sample_size, base_channels),
        Game(label_smoothing, penalty_per_pixel, penalty_interval, augmentation),
    )


def build_acgan(
    sample_size: int,
    label_smoothing: float,
    penalty_per_pixel: float,
    penalty_interval: int = 1,
    augmentation: float = 0.0,
    class_weight: float = 1.0,
    latent_dim: int = 100,
    generator_channels: int = 48,
    discriminator_channels: int = 32,
) -> ACGAN:
    """Generator and classifying discriminator of the five ACDC groups, with DCGAN's layers."""
    return ACGAN(
        ACGANGenerator(sample_size, latent_dim, generator_channels, class_names=GROUPS, default_class="HCM"),
        ACGANDiscriminator(sample_size, discriminator_channels, num_classes=len(GROUPS)),
        Game(label_smoothing, penalty_per_pixel, penalty_interval, augmentation),
        class_weight,
    )


def build_infogan(
    sample_size: int,
    label_smoothing: float,
    penalty_per_pixel: float,
    penalty_interval: int = 1,
    augmentation: float = 0.0,
    information_weight: float = 1.0,
    latent_dim: int = 74,
    num_categories: int = 10,
    num_continuous: int = 2,
    base_channels: int = 64,
    hidden_dim: int = 128,
) -> InfoGAN:
    """Generator of noise and codes, and a discriminator that reads the codes, with DCGAN's layers."""
    return InfoGAN(
        InfoGANGenerator(sample_size, latent_dim, num_categories, num_continuous, base_channels),
        InfoGANDiscriminator(sample_size, base_channels, num_categories, num_continuous, hidden_dim),
        Game(label_smoothing, penalty_per_pixel, penalty_interval, augmentation),
        information_weight,
    )


def build_ddpm(
    sample_size: int, block_out_channels: Sequence[int] = (32, 64, 128, 128), layers_per_block: int = 1
) -> Diffusion:
    """The denoising U-Net and the paper's noise."""
    return Diffusion(build_unet(sample_size, block_out_channels, layers_per_block), build_scheduler())


def build_paired_ddpm(
    sample_size: int,
    label_dropout: float,
    max_snr: float,
    image_weight: float,
    augmentation: float,
    block_out_channels: Sequence[int] = (32, 64, 96, 128),
    num_attention_levels: int = 2,
    patch_size: int | None = None,
) -> PairedDiffusion:
    """The U-Net on blocks of pixels of image and mask, by default 2 x 2 at 64 px and 4 x 4 at 128 px."""
    patch_size = patch_size or max(sample_size // 32, 1)
    unet = build_paired_unet(sample_size, patch_size, block_out_channels, num_attention_levels, count_labels(AXES))
    return PairedDiffusion(
        unet,
        build_paired_scheduler(),
        patch_size,
        sampler="sde-dpmsolver++",
        num_inference_steps=20,
        label_dropout=label_dropout,
        max_snr=max_snr,
        image_weight=image_weight,
        augmentation=augmentation,
    )


def build_halved_ddpm(
    sample_size: int,
    teacher: HCMPipeline,
    first_calls: int,
    label_dropout: float,
    image_weight: float,
    augmentation: float,
) -> ProgressiveDistillation:
    """The student of half as many calls."""
    teacher = check_teacher(sample_size, teacher)
    return ProgressiveDistillation(teacher, first_calls, label_dropout, image_weight, augmentation)


def build_distilled_ddpm(
    sample_size: int,
    teacher: HCMPipeline,
    num_inference_steps: int,
    label_dropout: float,
    max_snr: float,
    image_weight: float,
    augmentation: float,
) -> MomentMatching:
    """The student of few calls, and its auxiliary denoiser."""
    teacher = check_teacher(sample_size, teacher)
    return MomentMatching(teacher, num_inference_steps, label_dropout, max_snr, image_weight, augmentation)


def check_teacher(sample_size: int, teacher: HCMPipeline) -> PairedDDPMPipeline:
    """The teacher, if it makes pairs of this size.

    Raises:
        ValueError: if it does not.
    """
    if not teacher.makes_masks:
        raise ValueError(f"the teacher is a {type(teacher).__name__}, and only a PairedDDPMPipeline can teach.")
    if teacher.sample_size != sample_size:
        raise ValueError(f"the teacher makes slices of {teacher.sample_size} px, the dataset's have {sample_size}.")
    if [(axis, tuple(names)) for axis, names in teacher.config.axes] != list(AXES.items()):
        raise ValueError(f"the teacher is asked for {dict(teacher.config.axes)}, the slices are labelled by {AXES}.")
    return teacher


def build_encoder(sample_size: int, block_out_channels: Sequence[int] = (16, 32, 64, 128)) -> SliceRecognition:
    """The encoder of the evaluation and its four tasks."""
    return SliceRecognition(SliceEncoder(STRUCTURES, GROUPS, PHASES, sample_size, block_out_channels))


def study(
    build: Callable[..., Objective],
    groups: tuple[str, ...],
    num_epochs: int = 100,
    ema_decay: float = 0.0,
    sampling: dict | None = None,
    **objective: float,
) -> Recipe:
    """A recipe with the study's Adam, batch and early stopping; patience, which it does not give, is 50 epochs."""
    return Recipe(
        build,
        groups,
        num_epochs,
        train_batch_size=32,
        learning_rate=2e-4,
        adam_betas=(0.5, 0.999),
        patience=50,
        ema_decay=ema_decay,
        objective=objective,
        sampling=sampling or {},
    )


def tuned_game(
    build: Callable[..., Objective],
    groups: tuple[str, ...],
    num_epochs: int,
    learning_rate: float = 2e-4,
    ema_decay: float = 0.995,
    **objective: float,
) -> Recipe:
    """A GAN's recipe for a few hundred slices: differentiable augmentation, lazy penalty, averaged weights."""
    recipe = study(build, groups, num_epochs, ema_decay, **LAZY, **objective)
    return replace(recipe, patience=num_epochs, learning_rate=learning_rate)


HCM = ("HCM",)
# R1's gamma is 2e-4 pixels / batch size, for the study's 32: https://huggingface.co/papers/2006.06676, appendix C.
ADVERSARIAL = {"label_smoothing": 0.1, "penalty_per_pixel": 2e-4 / 32}
LAZY = ADVERSARIAL | {"penalty_interval": 4}
FIFTY_STEPS = {"scheduler": "ddpm", "num_inference_steps": 50}  # of a thousand, which take hours
PAPERS = "https://huggingface.co/papers/"

TUNED_VAE = Recipe(
    build_sigma_vae,
    HCM,
    num_epochs=300,
    train_batch_size=32,
    learning_rate=1e-3,
    adam_betas=(0.9, 0.999),
    patience=100,
    ema_decay=0.99,
    objective={"warmup_steps": 300, "augmentation": 1.0, "num_components": 8, "shrinkage": 128.0},
)
TUNED_GAN = tuned_game(build_gan, HCM, 400, 5e-4, 0.999, augmentation=0.5)
TUNED_DCGAN = tuned_game(build_dcgan, HCM, 200, augmentation=1.0, base_channels=32)
TUNED_ACGAN = tuned_game(build_acgan, GROUPS, 200, augmentation=1.0, class_weight=0.5, generator_channels=32)
TUNED_INFOGAN = tuned_game(build_infogan, HCM, 300, augmentation=1.0, base_channels=32)
TUNED_DDPM = Recipe(
    build_paired_ddpm,
    GROUPS,
    num_epochs=150,
    train_batch_size=32,
    learning_rate=1e-3,
    adam_betas=(0.9, 0.99),
    patience=150,
    ema_decay=0.999,
    objective={"label_dropout": 0.1, "max_snr": 100.0, "image_weight": 3.0, "augmentation": 0.5},
)
DISTILLED_DDPM = Recipe(
    build_distilled_ddpm,
    GROUPS,
    num_epochs=20,
    train_batch_size=32,
    learning_rate=1e-3,
    adam_betas=(0.0, 0.99),
    patience=20,
    ema_decay=0.995,
    objective={
        "num_inference_steps": 4,
        "label_dropout": 0.1,
        "max_snr": 100.0,
        "image_weight": 3.0,
        "augmentation": 0.5,
    },
    lr_scheduler="linear",
    relative_rates={"unet": 0.15},  # the auxiliary has to keep up with the student
    taught_by=("tuned",),
)
HALVED_DDPM = replace(
    DISTILLED_DDPM,
    build=build_halved_ddpm,
    taught_by=("tuned", "halved"),
    num_epochs=10,
    patience=10,
    learning_rate=1e-4,
    adam_betas=(0.9, 0.99),
    ema_decay=0.99,
    lr_scheduler="constant",
    relative_rates=None,
    objective={"first_calls": 4, "label_dropout": 0.1, "image_weight": 3.0, "augmentation": 0.5},
)

# "paper": the study's settings where it gives them, the original papers' where it does not: docs/reproduction.md.
# fmt: off
FAMILIES = {
    "vae":     Family(PAPERS + "1312.6114",  {"paper": study(build_vae,     HCM),
                                              "tuned": TUNED_VAE}),
    "gan":     Family(PAPERS + "1406.2661",  {"paper": study(build_gan,     HCM,    **ADVERSARIAL),
                                              "tuned": TUNED_GAN}),
    "dcgan":   Family(PAPERS + "1511.06434", {"paper": study(build_dcgan,   HCM,    **ADVERSARIAL),
                                              "tuned": TUNED_DCGAN}),
    "acgan":   Family(PAPERS + "1610.09585", {"paper": study(build_acgan,   GROUPS, **ADVERSARIAL),
                                              "tuned": TUNED_ACGAN}),
    "infogan": Family(PAPERS + "1606.03657", {"paper": study(build_infogan, HCM,    **ADVERSARIAL),
                                              "tuned": TUNED_INFOGAN}),
    "ddpm":    Family(PAPERS + "2006.11239", {"paper": study(build_ddpm,    HCM,    115, 0.9999, FIFTY_STEPS),
                                              "tuned": TUNED_DDPM,
                                              "distilled": DISTILLED_DDPM,
                                              "halved": HALVED_DDPM}),
}
# fmt: on

# What judges the families is trained by the same loop, and is none of them. Its training is short: longer ones
# segment a little better, but learn the training patients by heart, and the features then set these apart from others.
INSTRUMENTS = {
    "encoder": Family(
        PAPERS + "1505.04597",
        {
            "default": Recipe(
                build_encoder,
                GROUPS,
                num_epochs=14,
                train_batch_size=32,
                learning_rate=1e-3,
                adam_betas=(0.9, 0.999),
                patience=14,
                ema_decay=0.99,
                objective={},
            )
        },
    )
}


def find_family(family: str, recipe: str) -> tuple[Family, Recipe]:
    """Look up a family, or an instrument, and its recipe.

    Raises:
        InputError: if either is unknown; it lists those that exist.
    """
    found = (FAMILIES | INSTRUMENTS).get(family)
    if found is None:
        raise InputError(f"Unknown --family '{family}'; choose among {', '.join(FAMILIES)}.")
    if recipe not in found.recipes:
        raise InputError(f"Unknown --recipe '{recipe}' of {family}; choose among {', '.join(found.recipes)}.")
    return found, found.recipes[recipe]
