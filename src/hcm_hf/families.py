"""The families: what builds each one and the recipes that it is trained with."""

from collections.abc import Callable
from dataclasses import dataclass

from hcm_hf.config import Recipe
from hcm_hf.errors import InputError
from hcm_hf.models import DCGANDiscriminator, DCGANGenerator
from hcm_hf.objectives import GAN, Objective


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        build: `build(sample_size, **recipe.objective)` returns the objective with fresh networks.
        groups: the ACDC groups that it is trained on unless told otherwise.
        paper: where it was introduced.
        recipes: its settings by name.
    """

    build: Callable[..., Objective]
    groups: tuple[str, ...]
    paper: str
    recipes: dict[str, Recipe]


def build_dcgan(
    sample_size: int,
    label_smoothing: float,
    penalty_per_pixel: float,
    latent_dim: int = 100,
    base_channels: int = 64,
) -> GAN:
    """The DCGAN networks in the minimax game, with the gradient penalty's weight in proportion to the image's area."""
    return GAN(
        DCGANGenerator(sample_size, latent_dim, base_channels),
        DCGANDiscriminator(sample_size, base_channels),
        label_smoothing,
        penalty_weight=penalty_per_pixel * sample_size**2,
    )


# The study gives Adam, its rate and betas, the batch, 100 epochs and early stopping; the rest is the original papers'.
FAMILIES = {
    "dcgan": Family(
        build=build_dcgan,
        groups=("HCM",),
        paper="https://huggingface.co/papers/1511.06434",
        recipes={
            "paper": Recipe(
                num_epochs=100,
                train_batch_size=32,
                learning_rate=2e-4,
                adam_betas=(0.5, 0.999),
                patience=50,
                ema_decay=0.0,
                # R1's gamma is 2e-4 pixels / batch size: https://huggingface.co/papers/2006.06676, appendix C.
                objective={"label_smoothing": 0.1, "penalty_per_pixel": 2e-4 / 32},
            ),
        },
    ),
}


def find_family(family: str, recipe: str) -> tuple[Family, Recipe]:
    """Look up a family and its recipe.

    Raises:
        InputError: if either is unknown; it lists those that exist.
    """
    if family not in FAMILIES:
        raise InputError(f"Unknown --family '{family}'; choose among {', '.join(FAMILIES)}.")
    recipes = FAMILIES[family].recipes
    if recipe not in recipes:
        raise InputError(f"Unknown --recipe '{recipe}' of {family}; choose among {', '.join(recipes)}.")
    return FAMILIES[family], recipes[recipe]
