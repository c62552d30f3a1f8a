"""What a slice is to show, as a vector: a label of words and a wall thickness in millimetres."""

import math

import torch
from torch import nn


LARGEST_WALL = 40.0  # mm; thicker ones are embedded, but are not told apart well
FREQUENCIES = 6  # of the wall thickness, from half a wave over its range on


class ConditionEmbedding(nn.Module):
    """Labels (B,) and wall thicknesses (B,) to vectors (B, dim); either may be left open.

    Args:
        num_labels: number of labels; one more, the last, stands for none.
        dim: length of a vector.
    """

    def __init__(self, num_labels: int, dim: int):
        super().__init__()
        self.labels = nn.Embedding(num_labels + 1, dim)
        self.wall = nn.Sequential(nn.Linear(1 + 2 * FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, labels: torch.Tensor, walls: torch.Tensor) -> torch.Tensor:
        """Embed.

        Args:
            labels: int64 (B,).
            walls: mm, (B,); not a number where the thickness is left open.

        Returns:
            (B, dim).
        """
        known = walls.isfinite()[:, None]
        place = (walls.nan_to_num(0.0) / LARGEST_WALL)[:, None].to(self.labels.weight)  # (B, 1)
        waves = math.pi * place * torch.arange(1, FREQUENCIES + 1, device=place.device)  # (B, FREQUENCIES)
        wall = self.wall(torch.cat([2 * place - 1, waves.sin(), waves.cos()], dim=1))  # (B, dim)
        return self.labels(labels) + wall * known
