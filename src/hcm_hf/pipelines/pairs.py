"""What pipelines of slices with their segmentations have in common: what they take, and what they return."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image

from hcm_hf.models.latent import Generators
from hcm_hf.models.unet import split_pairs
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.conditions import Answers, Asked, Conditions
from hcm_hf.utils.errors import InputError


WALL = "wall_thickness"  # the condition, mm: the greatest of a slice


@dataclass
class PairedPipelineOutput(BaseOutput):
    """Slices with their segmentations.

    Attributes:
        images: as `output_type` says: PIL images of mode L, (B, H, W, 1) in [0, 1] or (B, 1, H, W) in [0, 1].
        masks: PIL images of mode L, uint8 (B, H, W) or int64 (B, H, W), with the labels of ACDC: 0 background, 1 right
            ventricle's cavity, 2 myocardium, 3 left ventricle's cavity. None beside latents.
        conditions: what each shows, for example {"group": "HCM", "phase": "ED", "level": "mid"}, with None for
            what was left open.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor
    masks: list[Image.Image] | np.ndarray | torch.Tensor | None
    conditions: list[Answers]


class PairedPipeline(HCMPipeline):
    """Slices with their segmentations, for a group, phase and part of the heart, and for a wall thickness.

    A subclass saves `axes`, `frequencies`, `defaults` and `ranges`: see `Conditions`.
    """

    makes_masks = True

    @property
    def conditions(self) -> Conditions:
        """See `HCMPipeline.conditions`."""
        config = self.config
        ranges = {name: tuple(ends) for name, ends in config.ranges.items()}
        return Conditions(dict(config.axes), config.frequencies, config.defaults, ranges)

    def check_conditions(self) -> None:
        """See that what can be asked for makes sense.

        Raises:
            InputError: says what does not.
        """
        self.conditions.check()
        if unknown := set(self.config.ranges) - {WALL}:
            raise InputError(f"its ranges name {sorted(unknown)[0]!r}; its network knows {WALL} alone.")

    def draw_labels(
        self,
        batch_size: int,
        generator: Generators = None,
        asked: Asked | Sequence[Asked] | np.ndarray | torch.Tensor = None,
    ) -> torch.Tensor:
        """Draw the labels (B,) of the slices to make; the arguments are those of a call, `asked` its conditions."""
        self._check_batch(batch_size, generator)
        return self.conditions.draw(asked, batch_size, generator).to(self._execution_device)

    def find_walls(
        self, batch_size: int, asked: Asked | Sequence[Asked] | np.ndarray | torch.Tensor
    ) -> tuple[torch.Tensor, list[Answers]]:
        """The wall thicknesses that are asked for: mm, (B,), not a number where one is left open; and in words."""
        amounts = self.conditions.amounts(asked, batch_size)
        walls = [one.get(WALL) for one in amounts]
        thickness = [float("nan") if wall is None else float(wall) for wall in walls]
        return torch.tensor(thickness, device=self._execution_device), amounts

    def _split(
        self, pairs: torch.Tensor, shown: list[Answers], output_type: str, patch_size: int = 1, mask_scale: float = 1.0
    ) -> PairedPipelineOutput:
        """Turn what a network makes, blocks of `patch_size` pixels, into what `output_type` says."""
        pixels, labels = split_pairs(pairs.float(), patch_size, mask_scale)
        masks: list[Image.Image] | np.ndarray | torch.Tensor = labels
        if output_type in ("np", "pil"):
            arrays = labels.byte().cpu().numpy()
            masks = [Image.fromarray(mask) for mask in arrays] if output_type == "pil" else arrays
        return PairedPipelineOutput(images=self._convert(pixels, output_type), masks=masks, conditions=shown)
