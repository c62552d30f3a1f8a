"""The families and the recipes that they are trained with: networks, losses and settings."""

from dataclasses import replace
from functools import partial
from typing import Any

from hcm_hf.data.augmentation import StrongAugmentation
from hcm_hf.data.cohort import PHASES, STRUCTURES
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
    PairedACGANDiscriminator,
    PairedACGANGenerator,
    SliceEncoder,
)
from hcm_hf.models.unet import ConditionedUNet2DModel, build_paired_unet, build_unet
from hcm_hf.training.config import TrainingConfig
from hcm_hf.training.objectives.acgan import ACGAN
from hcm_hf.training.objectives.adversarial_matching import AdversarialMatching
from hcm_hf.training.objectives.crisp import CrispDiffusion, Crispness
from hcm_hf.training.objectives.ddpm import Diffusion
from hcm_hf.training.objectives.distillation import Autoguidance, MomentMatching
from hcm_hf.training.objectives.encoder import SliceRecognition
from hcm_hf.training.objectives.gan import GAN, Game
from hcm_hf.training.objectives.infogan import InfoGAN
from hcm_hf.training.objectives.pair_game import PairGame
from hcm_hf.training.objectives.paired import PairedDiffusion
from hcm_hf.training.objectives.paired_acgan import PairedACGAN
from hcm_hf.training.objectives.vae import SigmaVAE, VariationalAutoencoder
from hcm_hf.training.recipe import (
    GROUP_NAMES,
    RATES,
    TARGET,
    Family,
    Recipe,
    count_answers,
    count_conditions,
    count_groups,
)
from hcm_hf.utils.arguments import at_least, one_of
from hcm_hf.utils.errors import InputError


GAN_PAIR = {"generator": GANGenerator, "discriminator": GANDiscriminator}
DCGAN_PAIR = {"generator": DCGANGenerator, "discriminator": DCGANDiscriminator}
ACGAN_PAIR = {"generator": ACGANGenerator, "discriminator": ACGANDiscriminator}
CLASSES: dict[str, dict[str, Any]] = {
    "generator": {"class_names": GROUP_NAMES, "default_class": TARGET},
    "discriminator": {"num_classes": count_groups},
}
INFOGAN_PAIR = {"generator": InfoGANGenerator, "discriminator": InfoGANDiscriminator}
NARROW = {"generator": {"base_channels": 32}, "discriminator": {"base_channels": 32}}
# R1's gamma is 2e-4 pixels / batch size, for the study's 32: https://huggingface.co/papers/2006.06676, appendix C.
STUDY = Game(label_smoothing=0.1, penalty_per_pixel=2e-4 / 32)
# For a few hundred slices: differentiable augmentation and a lazy penalty.
AUGMENTED = replace(STUDY, penalty_interval=4, augmentation=1.0)
OPEN = {"label_dropout": 0.1, "wall_dropout": 0.3}  # how often what is asked for is left open in training
PAIRS_OF_A_GAN = Recipe(
    PairedACGAN,
    {"generator": PairedACGANGenerator, "discriminator": PairedACGANDiscriminator},
    {"generator": {"num_labels": count_conditions}, "discriminator": {"answers": count_answers}},
    losses={"game": PairGame()} | OPEN,
    groups="all",
    num_epochs=280,
    adam_betas=(0.0, 0.99),
    patience=280,
    ema_decay=0.999,
)
PAIRED = {"label_dropout": 0.1, "max_snr": 100.0, "image_weight": 3.0, "augmentation": 0.5}

# "paper": the study's settings where it gives them, the original papers' where it does not: docs/explanation/study.md.
FAMILIES = {
    "vae": Family(
        "https://huggingface.co/papers/1312.6114",
        {
            "paper": Recipe(VariationalAutoencoder, {"vae": VAE}),
            "tuned": Recipe(
                SigmaVAE,
                {"vae": MixtureVAE},
                sizes={"vae": {"num_components": 8}},
                losses={"warmup_steps": 300, "augmentation": 1.0, "shrinkage": 128.0},
                num_epochs=300,
                learning_rate=1e-3,
                adam_betas=(0.9, 0.999),
                patience=100,
                ema_decay=0.99,
            ),
        },
    ),
    "gan": Family(
        "https://huggingface.co/papers/1406.2661",
        {
            "paper": Recipe(GAN, GAN_PAIR, losses={"game": STUDY}),
            "tuned": Recipe(
                GAN,
                GAN_PAIR,
                losses={"game": replace(AUGMENTED, augmentation=0.5)},
                num_epochs=400,
                learning_rate=5e-4,
                patience=400,
                ema_decay=0.999,
            ),
        },
    ),
    "dcgan": Family(
        "https://huggingface.co/papers/1511.06434",
        {
            "paper": Recipe(GAN, DCGAN_PAIR, losses={"game": STUDY}),
            "tuned": Recipe(
                GAN, DCGAN_PAIR, NARROW, {"game": AUGMENTED}, num_epochs=200, patience=200, ema_decay=0.995
            ),
        },
    ),
    "acgan": Family(
        "https://huggingface.co/papers/1610.09585",
        {
            "paper": Recipe(ACGAN, ACGAN_PAIR, CLASSES, {"game": STUDY}, groups="all"),
            "tuned": Recipe(
                ACGAN,
                ACGAN_PAIR,
                {name: NARROW[name] | CLASSES[name] for name in ACGAN_PAIR},
                {"game": AUGMENTED, "class_weight": 0.5},
                groups="all",
                num_epochs=200,
                patience=200,
                ema_decay=0.995,
            ),
            "paired": PAIRS_OF_A_GAN,
            # Pixels are repeated, not convolved with gaps, and the discriminator sees how much a batch differs.
            "crisp": replace(
                PAIRS_OF_A_GAN,
                sizes={
                    "generator": PAIRS_OF_A_GAN.sizes["generator"] | {"upsampling": "nearest", "smooth_from": 128},
                    "discriminator": PAIRS_OF_A_GAN.sizes["discriminator"] | {"batch_spread": True},
                },
            ),
        },
    ),
    "infogan": Family(
        "https://huggingface.co/papers/1606.03657",
        {
            "paper": Recipe(InfoGAN, INFOGAN_PAIR, losses={"game": STUDY}),
            "tuned": Recipe(
                InfoGAN, INFOGAN_PAIR, NARROW, {"game": AUGMENTED}, num_epochs=300, patience=300, ema_decay=0.995
            ),
        },
    ),
    "ddpm": Family(
        "https://huggingface.co/papers/2006.11239",
        {
            "paper": Recipe(
                Diffusion,
                {"unet": build_unet},
                num_epochs=115,
                ema_decay=0.9999,
                sampling={"scheduler": "ddpm", "num_inference_steps": 50},  # 1,000 steps take hours
            ),
            "tuned": Recipe(
                PairedDiffusion,
                {"unet": build_paired_unet},
                sizes={"unet": {"num_labels": count_conditions}},
                losses=PAIRED,
                groups="all",
                num_epochs=150,
                learning_rate=1e-3,
                adam_betas=(0.9, 0.99),
                patience=150,
                ema_decay=0.999,
            ),
            "crisp": Recipe(
                CrispDiffusion,
                {"unet": partial(build_paired_unet, network=ConditionedUNet2DModel)},
                sizes={"unet": {"num_labels": count_conditions}},
                losses={"crispness": Crispness()},
                groups="all",
                num_epochs=500,
                learning_rate=1e-3,
                adam_betas=(0.9, 0.99),
                patience=500,
                ema_decay=0.999,
                lr_scheduler="warmup_stable_decay",
            ),
            "distilled": Recipe(
                MomentMatching,
                losses=PAIRED | {"num_inference_steps": 4, "autoguidance": Autoguidance()},
                groups="all",
                num_epochs=20,
                learning_rate=1e-3,
                adam_betas=(0.0, 0.99),
                patience=20,
                ema_decay=0.995,
                lr_scheduler="linear",
                relative_rates={"unet": 0.15},  # the auxiliary has to keep up with the student
                taught_by="tuned",
            ),
            "crisp_student": Recipe(
                AdversarialMatching,
                {"discriminator": PairedACGANDiscriminator},
                {"discriminator": {"answers": count_answers}},
                losses=PAIRED
                | OPEN
                | {"num_inference_steps": 1, "autoguidance": Autoguidance()}
                | {"game": PairGame(), "adversarial_weight": 0.5},
                groups="all",
                num_epochs=100,
                learning_rate=1e-3,
                adam_betas=(0.0, 0.99),
                patience=100,
                ema_decay=0.999,
                lr_scheduler="linear",
                relative_rates={"unet": 0.1, "discriminator": 0.1},
                taught_by="crisp",
            ),
        },
    ),
}

# The two networks of the evaluation's encoder are trained by the same loop but are no families. The feature encoder's
# training is short: longer ones overfit the training patients, and the features then separate these from others. The
# segmenter's is long: docs/explanation/tuning.md.
RECOGNITION = Recipe(
    SliceRecognition,
    {"encoder": SliceEncoder},
    sizes={"encoder": {"structures": STRUCTURES, "groups": GROUP_NAMES, "phases": PHASES}},
    groups="all",
    learning_rate=1e-3,
    adam_betas=(0.9, 0.999),
    ema_decay=0.99,
)
U_NET = "https://huggingface.co/papers/1505.04597"
INSTRUMENTS = {
    "features": Family(U_NET, {"default": replace(RECOGNITION, num_epochs=14, patience=14)}),
    "segmenter": Family(
        U_NET,
        {
            "default": replace(
                RECOGNITION,
                losses={"augmentation": StrongAugmentation()},
                num_epochs=60,
                learning_rate=2e-3,
                patience=60,
                lr_scheduler="linear",
            )
        },
    ),
}


def find_family(family: str, recipe: str) -> tuple[Family, Recipe]:
    """Look up a family, or one of the networks of the evaluation, and its recipe.

    Raises:
        InputError: if either is unknown; the message lists the known ones.
    """
    known = FAMILIES | INSTRUMENTS
    if family not in known:
        one_of("family", family, FAMILIES)
    found = known[family]
    if recipe not in found.recipes:
        raise InputError(f"Unknown recipe '{recipe}' of {family}; choose among {', '.join(found.recipes)}.")
    return found, found.recipes[recipe]


def resolve(config: TrainingConfig, recipe: Recipe | None = None) -> Recipe:
    """The recipe that a configuration names, or `recipe`, with the settings that the configuration overrides.

    Raises:
        InputError: if a name is unknown or a setting is out of range.
    """
    recipe = recipe or find_family(config.family, config.recipe)[1]
    overridden = {name: vars(config)[name] for name in vars(recipe) if vars(config).get(name) is not None}
    recipe = replace(recipe, **overridden)
    if config.num_inference_steps is not None:
        if "num_inference_steps" not in recipe.losses:
            raise InputError(f"num_inference_steps is for distilled students only; leave it out for {config.recipe}.")
        at_least("num_inference_steps", config.num_inference_steps, 1)
        recipe = replace(recipe, losses=recipe.losses | {"num_inference_steps": config.num_inference_steps})
    for name in ("num_epochs", "train_batch_size", "patience"):
        at_least(name, vars(recipe)[name], 1)
    if recipe.num_steps is not None:
        at_least("num_steps", recipe.num_steps, 1)
    for name in ("checkpointing_epochs", "sample_epochs"):
        at_least(name, vars(config)[name], 1)
    at_least("seed", config.seed, 0)
    if not recipe.learning_rate > 0:
        raise InputError(f"learning_rate is {recipe.learning_rate}; it must be above 0.")
    if not 0 <= recipe.ema_decay < 1:
        raise InputError(f"ema_decay is {recipe.ema_decay}; it must be at least 0 and below 1.")
    one_of("lr_scheduler", recipe.lr_scheduler, RATES)
    return recipe
