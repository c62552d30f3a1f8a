"""Small things that several tests share."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.slices import SliceBatch
from hcm_hf.data.vocabulary import Vocabulary
from hcm_hf.training.objectives.base import Objective
from hcm_hf.training.recipe import Family, Recipe
from hcm_hf.training.recipes import FAMILIES, INSTRUMENTS
from hcm_hf.utils.names import INSTRUMENT_FOLDERS


ACDC = Vocabulary(GROUPS)
# Tiny sizes of every family's networks: real networks, a few channels wide.
TINY = {
    "vae": {"vae": {"latent_dim": 6, "base_channels": 4}},
    "gan": {"generator": {"latent_dim": 6, "hidden_dim": 16}, "discriminator": {"hidden_dim": 8}},
    "dcgan": {"generator": {"latent_dim": 6, "base_channels": 4}, "discriminator": {"base_channels": 4}},
    "acgan": {"generator": {"latent_dim": 6, "base_channels": 4}, "discriminator": {"base_channels": 4}},
    "infogan": {
        "generator": {"latent_dim": 9, "num_categories": 3, "base_channels": 4},
        "discriminator": {"num_categories": 3, "base_channels": 4, "hidden_dim": 8},
    },
    "ddpm": {"unet": {"block_out_channels": (4, 8)}},
}
# Of recipes with networks of their own; students have their teacher's.
TINY_RECIPES = {
    ("vae", "tuned"): {"vae": TINY["vae"]["vae"] | {"num_components": 2}},
    ("acgan", "paired"): {
        "generator": {"latent_dim": 6, "base_channels": 4, "max_channels": 8, "condition_dim": 4},
        "discriminator": {"base_channels": 4, "max_channels": 8},
    },
    ("acgan", "crisp"): {
        "generator": {"latent_dim": 6, "base_channels": 4, "max_channels": 8, "condition_dim": 4},
        "discriminator": {"base_channels": 4, "max_channels": 8},
    },
    ("ddpm", "tuned"): {"unet": {"block_out_channels": (8, 8), "num_attention_levels": 1}},
    ("ddpm", "crisp"): {"unet": {"block_out_channels": (8, 8), "num_attention_levels": 1}},
    ("ddpm", "distilled"): {},
    ("ddpm", "crisp_student"): {"discriminator": {"base_channels": 4, "max_channels": 8}},
}
# Every family with each of its recipes.
MODELS = [(family, recipe) for family in FAMILIES for recipe in FAMILIES[family].recipes]
# What makes a call of a family's pipeline quick.
QUICK_CALL = {"ddpm": {"num_inference_steps": 3}}


def random_images(n: int, seed: int = 0, height: int = 33, width: int = 40) -> np.ndarray:
    """Grainy, smooth, saturated and half-flat images."""
    generator = np.random.default_rng(seed)
    images = generator.random((n, height, width))
    images[1::4] = 0.4 + 0.2 * images[1::4].cumsum(1) / height
    images[2::4] = (images[2::4] * 4 - 1.5).clip(0, 1)
    images[3::4, : height // 2] = 0
    return images.astype(np.float32)


def resized(recipe: Recipe, sizes: dict[str, dict]) -> Recipe:
    """A recipe whose networks have other sizes."""
    return replace(recipe, sizes={name: recipe.sizes.get(name, {}) | sizes.get(name, {}) for name in recipe.networks})


def tiny_recipe(family: str, recipe: str) -> Recipe:
    """A recipe at its tiny size; all else is the real thing."""
    return resized(FAMILIES[family].recipes[recipe], TINY_RECIPES.get((family, recipe), TINY[family]))


def tiny_families() -> dict[str, Family]:
    """Every family at its tiny size."""
    return {
        name: replace(family, recipes={recipe: tiny_recipe(name, recipe) for recipe in family.recipes})
        for name, family in FAMILIES.items()
    }


def shrink(patch):
    """Train every family and both networks of the encoder at their tiny sizes, until the `patch` is undone."""
    for name, family in tiny_families().items():
        patch.setitem(FAMILIES, name, family)
    for family in INSTRUMENTS.values():
        recipe = resized(family.recipes["default"], {"encoder": {"block_out_channels": (4, 8)}})
        patch.setitem(family.recipes, "default", recipe)
    patch.setattr(Objective, "num_compared", 32)


def tiny_instruments() -> dict[str, Family]:
    """The networks of the evaluation at a tiny size."""
    sizes = {"encoder": {"block_out_channels": (8, 16, 64)}}
    return {
        name: replace(family, recipes={"default": resized(family.recipes["default"], sizes)})
        for name, family in INSTRUMENTS.items()
    }


def build_tiny(family: str, seed: int = 0, recipe: str = "paper", teacher=None, guide=None, **losses):
    """A family's objective at its tiny size, 16 pixels, with its recipe's losses; a student gets a `teacher`."""
    found = tiny_recipe(family, recipe)
    if found.taught_by and teacher is None:
        taught = build_tiny(family, recipe=found.taught_by)
        for name, buffer in taught.named_buffers():
            if name == "wall_range":
                buffer.copy_(torch.tensor([4.0, 60.0]))  # of a training that has met walls
        teacher = taught.pipeline()
    given = {"teacher": teacher, "guide": guide}
    teachers = {name: pipeline for name, pipeline in given.items() if pipeline is not None}
    torch.manual_seed(seed)
    return replace(found, losses=found.losses | losses).build(16, ACDC, teachers)


def sample(family: str, pipeline, batch_size: int = 3) -> np.ndarray:
    """Images (B, H, W, 1) of seed 0, in few steps where the family takes steps."""
    generator = torch.Generator().manual_seed(0)
    return pipeline(batch_size, generator=generator, output_type="np", **QUICK_CALL.get(family, {})).images


def pictures(folder: Path) -> dict[str, bytes]:
    """The PNG files in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def batch_of(images, class_labels=None):
    empty = torch.zeros(len(images), dtype=torch.long)
    labels = empty if class_labels is None else torch.tensor(class_labels)
    return SliceBatch(images, empty, labels, empty, empty.float())


def some_pairs(seed=0):
    return torch.randn(6, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


class Linear(torch.nn.Module):
    """v = gain(t) z: the network of data that are normal with mean 0."""

    def __init__(self, gains):
        super().__init__()
        self.gains = torch.nn.Parameter(gains)

    def forward(self, noisy, timesteps, class_labels):
        gains = self.gains[torch.as_tensor(timesteps).expand(len(noisy))][:, None, None, None]
        return SimpleNamespace(sample=gains * noisy)


def best_gains(scheduler, deviation=0.5):
    """The exact v of normal data: alpha E[noise | z] - sigma E[x | z]."""
    alphas = scheduler.alphas_cumprod
    return (alphas * (1 - alphas)).sqrt() * (1 - deviation**2) / (alphas * deviation**2 + 1 - alphas)


def save_instrument(folder, network, **written):
    """One of an encoder's two networks as a training run leaves it."""
    network.save_pretrained(folder)
    noted = {"train_patients": {"patient001": ["abc"]}, "version": "9.9"} | written
    (folder / "training_config.json").write_text(json.dumps(noted))
    return folder


def save_encoder(folder, network, **written):
    """An encoder whose two networks are the same."""
    for name in INSTRUMENT_FOLDERS:
        save_instrument(folder / name, network, **written)
    return folder


def notes(**changes) -> dict:
    """The least that a training run notes of itself."""
    return {
        "family": "dcgan",
        "recipe": "paper",
        "version": "0.1.0",
        "groups": ["HCM"],
        "resolution": 16,
        "dataset": "acdc-16",
        "train_patients": {"patient001": ["0123456789abcdef"]},
    } | changes


def save_run(folder, objective, **written):
    """A generator as a training run leaves it."""
    objective.pipeline().save_pretrained(folder / "best")
    (folder / "training_config.json").write_text(json.dumps(notes(**written)))
    return folder


def network_of(pipeline):
    """The network that a pipeline calls."""
    return pipeline.components[pipeline.network_name]


def files_of(folder):
    """What a folder's files hold, by their paths in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
