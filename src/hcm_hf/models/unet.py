"""The U-Nets of the diffusion models, https://huggingface.co/papers/2006.11239: diffusers' own, at these sizes.

The study's sees images. The tuned model's sees images and their segmentations at once, as blocks of pixels.
"""

from collections.abc import Sequence

import torch
from diffusers import UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch.nn import functional as F

from hcm_hf.models.conditioning import ConditionEmbedding


NUM_STRUCTURES = 3  # the mask's values 1 to 3, a channel each
PAIR_CHANNELS = 1 + NUM_STRUCTURES


def build_unet(
    sample_size: int = 64, block_out_channels: Sequence[int] = (32, 64, 128, 128), layers_per_block: int = 1
) -> UNet2DModel:
    """A one-channel U-Net with self-attention at its lowest level.

    Args:
        sample_size: pixels a side, divisible by two for each level but one, with two left or more.
        block_out_channels: width of each level; multiples of the first, which is a multiple of four.
        layers_per_block: residual blocks per level on the way down; on the way up there is one more.

    Raises:
        ValueError: if the size does not fit the levels.
    """
    levels = _check_levels(sample_size, block_out_channels)
    return UNet2DModel(
        sample_size=sample_size,
        in_channels=1,
        out_channels=1,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
        norm_num_groups=block_out_channels[0] // 4,  # four channels a group at the first level, as in the paper
    )


class ConditionedUNet2DModel(UNet2DModel):
    """diffusers' `UNet2DModel` for labels and wall thicknesses: `class_embed_type="identity"` with their embedding.

    The arguments are those of `UNet2DModel`; `num_class_embeds` counts the labels and the one that leaves all open.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int,
        in_channels: int,
        out_channels: int,
        block_out_channels: Sequence[int],
        layers_per_block: int,
        down_block_types: Sequence[str],
        up_block_types: Sequence[str],
        attention_head_dim: int,
        norm_num_groups: int,
        num_class_embeds: int,
    ):
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            down_block_types=tuple(down_block_types),
            up_block_types=tuple(up_block_types),
            attention_head_dim=attention_head_dim,
            norm_num_groups=norm_num_groups,
            class_embed_type="identity",
            num_class_embeds=num_class_embeds,
        )
        self.condition = ConditionEmbedding(num_class_embeds - 1, 4 * block_out_channels[0])

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        class_labels: torch.Tensor,
        wall_thickness: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple:
        """Predict from noisy blocks.

        Args:
            sample: (B, in_channels, H, W).
            timestep: one for all, or (B,).
            class_labels: int64 (B,).
            wall_thickness: mm, (B,), not a number where it is left open; by default everywhere.
            return_dict: whether to return a `UNet2DOutput` or a tuple.
        """
        if wall_thickness is None:
            wall_thickness = torch.full(class_labels.shape, torch.nan, device=class_labels.device)
        asked = self.condition(class_labels, wall_thickness)  # (B, 4 C)
        return super().forward(sample, timestep, class_labels=asked, return_dict=return_dict)


def build_paired_unet(
    sample_size: int,
    num_labels: int,
    block_out_channels: Sequence[int] = (32, 64, 96, 128),
    num_attention_levels: int = 2,
    patch_size: int | None = None,
    network: type[UNet2DModel] = UNet2DModel,
) -> UNet2DModel:
    """A U-Net on blocks of `patch_size` x `patch_size` pixels of a slice and its mask.

    Each block is one pixel of the network's input, with `PAIR_CHANNELS * patch_size^2` channels.

    Args:
        sample_size: pixels a side of slices; `patch_size` times a multiple of two for each level but one.
        num_labels: number of condition labels; the network has one more, the last, for no condition.
        block_out_channels: width of each level; multiples of eight.
        num_attention_levels: number of levels, the lowest ones, with self-attention.
        patch_size: pixels a side of a block; by default 1 for each 32 pixels of `sample_size`.
        network: the class, `ConditionedUNet2DModel` for wall thicknesses too.

    Raises:
        ValueError: if the size does not fit the blocks and levels.
    """
    patch_size = patch_size or max(sample_size // 32, 1)
    levels = _check_levels(sample_size, block_out_channels, patch_size)
    channels = PAIR_CHANNELS * patch_size**2
    plain = levels - num_attention_levels
    unet = network(
        sample_size=sample_size // patch_size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(block_out_channels),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",) * num_attention_levels,
        up_block_types=("AttnUpBlock2D",) * num_attention_levels + ("UpBlock2D",) * plain,
        attention_head_dim=min(32, block_out_channels[-num_attention_levels]),
        norm_num_groups=block_out_channels[0] // 4,
        num_class_embeds=num_labels + 1,
    )
    return use_plain_attention(unet)


def _check_levels(sample_size: int, block_out_channels: Sequence[int], patch_size: int = 1) -> int:
    """The number of levels, if the size can be halved so often."""
    levels = len(block_out_channels)
    unit = patch_size * 2 ** (levels - 1)
    if sample_size % unit or sample_size < 2 * unit:
        blocks = f"blocks of {patch_size} px and " if patch_size > 1 else ""
        need = f"{blocks}{levels} levels need a multiple of {unit}, {2 * unit} or more"
        raise ValueError(f"sample_size is {sample_size}; {need}.")
    return levels


def use_plain_attention(unet: UNet2DModel) -> UNet2DModel:
    """Set the network's attention to plain matrix products; on CPUs PyTorch's fused kernel is slow to train.

    Its backward pass takes a fifth of a training step at these small sizes; see docs/explanation/costs.md.
    """
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
    return unet


def join_pairs(images: torch.Tensor, masks: torch.Tensor, patch_size: int, mask_scale: float = 1.0) -> torch.Tensor:
    """Join images (B, 1, H, W) in [-1, 1] and masks (B, H, W), 0 to 3, into the network's input.

    It is (B, 4 patch_size^2, H / patch_size, W / patch_size): the image's pixels of each block, then for each
    structure `mask_scale` where it is and -`mask_scale` elsewhere. A mask of -1 is a slice without a segmentation,
    whose channels become 0.
    """
    structures = torch.stack([masks == label for label in range(1, NUM_STRUCTURES + 1)], dim=1)
    signs = torch.where(structures, mask_scale, -mask_scale).to(images.dtype)  # (B, 3, H, W)
    signs = signs.masked_fill((masks < 0)[:, None], 0)
    return F.pixel_unshuffle(torch.cat([images, signs], dim=1), patch_size)


def split_pairs(pairs: torch.Tensor, patch_size: int, mask_scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Split the network's output into images (B, 1, H, W) and masks (B, H, W), int64.

    A mask's value is the channel with the largest value. The four channels of a pixel sum to -2 times `mask_scale` (it
    once, its negative three times), which gives the background's channel. So an uncertain pixel between two structures
    is no gap.
    """
    pairs = F.pixel_shuffle(pairs, patch_size)
    background = -2 * mask_scale - pairs[:, 1:].sum(1, keepdim=True)
    return pairs[:, :1], torch.cat([background, pairs[:, 1:]], dim=1).argmax(1)
