"""The network of the tuned diffusion model: slices and their segmentations at once, on blocks of pixels."""

from collections.abc import Sequence

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch.nn import functional as F


NUM_STRUCTURES = 3  # the mask's values 1 to 3, a channel each
PAIR_CHANNELS = 1 + NUM_STRUCTURES


def build_paired_unet(
    sample_size: int, patch_size: int, block_out_channels: Sequence[int], num_attention_levels: int, num_labels: int
) -> UNet2DModel:
    """A U-Net on blocks of `patch_size` x `patch_size` pixels, each a pixel of many channels.

    Args:
        sample_size: pixels a side of slices; `patch_size` times a multiple of two for each level but one.
        patch_size: pixels a side of a block.
        block_out_channels: width of each level; multiples of eight.
        num_attention_levels: the lowest levels, with self-attention.
        num_labels: labels that say something; there is one more, the last, that says nothing.

    Raises:
        ValueError: if the size does not fit the blocks and levels.
    """
    levels = len(block_out_channels)
    unit = patch_size * 2 ** (levels - 1)
    if sample_size % unit or sample_size < 2 * unit:
        raise ValueError(
            f"sample_size is {sample_size}; blocks of {patch_size} px and {levels} levels need a multiple of {unit}, "
            f"{2 * unit} or more."
        )
    channels = PAIR_CHANNELS * patch_size**2
    plain = levels - num_attention_levels
    unet = UNet2DModel(
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


def use_plain_attention(unet: UNet2DModel) -> UNet2DModel:
    """The same network, with attention as matrix products: on CPUs PyTorch's fused kernel is slow to train.

    Its backward pass takes a fifth of a training step of these small maps; see docs/costs.md.
    """
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
    return unet


def build_paired_scheduler() -> DDPMScheduler:
    """1,000 steps of the cosine schedule (https://huggingface.co/papers/2102.09672, equation 17), predicting v.

    v = alpha * noise - sigma * image (https://huggingface.co/papers/2202.00512, appendix D).
    """
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",  # few steps start from pure noise too: https://huggingface.co/papers/2305.08891
    )


def join_pairs(images: torch.Tensor, masks: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Images and masks as what the network sees.

    Args:
        images: (B, 1, H, W) in [-1, 1].
        masks: whole numbers (B, H, W), 0 to 3; -1 everywhere in a slice without a segmentation, whose channels are 0.
        patch_size: pixels a side of a block.

    Returns:
        (B, 4 patch_size^2, H / patch_size, W / patch_size): the image's pixels of each block, then for each structure
        1 where it is and -1 elsewhere.
    """
    structures = torch.stack([masks == label for label in range(1, NUM_STRUCTURES + 1)], dim=1)
    signs = torch.where(structures, 1.0, -1.0).to(images.dtype)  # (B, 3, H, W)
    signs = signs.masked_fill((masks < 0)[:, None], 0)
    return F.pixel_unshuffle(torch.cat([images, signs], dim=1), patch_size)


def split_pairs(pairs: torch.Tensor, patch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, 1, H, W) and masks (B, H, W), int64, of what the network makes.

    A pixel belongs to the likeliest of the structures and the background, whose channel is what the others leave: that
    of all four is 1 once and -1 three times. So a pixel that is either of two neighbours is no gap between them.
    """
    pairs = F.pixel_shuffle(pairs, patch_size)
    background = -2 - pairs[:, 1:].sum(1, keepdim=True)
    return pairs[:, :1], torch.cat([background, pairs[:, 1:]], dim=1).argmax(1)
