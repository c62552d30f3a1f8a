"""The pipeline of the tuned AC-GAN: slices with their segmentations in one call of one network, as asked for."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from hcm_hf.models.latent import Generators, LatentModel
from hcm_hf.models.paired_acgan import PairedACGANGenerator
from hcm_hf.pipelines.conditions import Asked
from hcm_hf.pipelines.latent import LatentPipeline
from hcm_hf.pipelines.pairs import PairedPipeline, PairedPipelineOutput
from hcm_hf.pipelines.sampling import one_of
from hcm_hf.utils.errors import InputError


class PairedLatentPipeline(PairedPipeline, LatentPipeline):
    """Slices with their segmentations from latents, for a group, phase, part of the heart and wall thickness.

    Args:
        network: makes pairs.
        axes: what can be asked for in words, a mapping or pairs: see `Conditions`, like the next three.
        frequencies: how often each combination was met in training.
        defaults: what is shown unless something else is asked for.
        ranges: the least and the greatest wall thickness of training, mm; empty where none was measured.
    """

    network_classes = {"PairedACGANGenerator": PairedACGANGenerator}
    saved_options = ("axes", "frequencies", "defaults", "ranges")

    def __init__(
        self,
        network: PairedACGANGenerator,
        axes: Mapping[str, Sequence[str]] | Sequence[tuple[str, Sequence[str]]] = (),
        frequencies: Sequence[float] = (1.0,),
        defaults: Mapping[str, str] | None = None,
        ranges: Mapping[str, Sequence[float]] | None = None,
    ):
        super().__init__(network)
        self.register_to_config(
            axes=[[name, list(answers)] for name, answers in dict(axes).items()],  # JSON sorts names, not lists
            frequencies=list(frequencies),
            defaults=dict(defaults or {}),
            ranges={name: list(ends) for name, ends in (ranges or {}).items()},
        )

    @classmethod
    def _build(cls, folder: Path, index: dict, network: LatentModel) -> "PairedLatentPipeline":
        pipeline = cls(network, **{name: index[name] for name in cls.saved_options})
        pipeline.check()
        return pipeline

    @staticmethod
    def _call_once(network: LatentModel) -> torch.Tensor:
        return network(torch.zeros(1, network.config.latent_dim))

    def check(self) -> None:
        """See that labels and network fit each other: of a saved pipeline, each comes from its own file.

        Raises:
            InputError: says what does not fit.
        """
        self.check_conditions()
        labels = self.network.config.num_labels
        if labels != self.conditions.null_label:
            raise InputError(f"its network takes {labels} labels, its axes make {self.conditions.null_label}.")

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        class_labels: str | int | Sequence[str | int] | np.ndarray | torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        conditions: Mapping[str, str | float] | Sequence[Mapping[str, str | float]] | None = None,
    ) -> PairedPipelineOutput | tuple:
        """Generate slices with their segmentations.

        Args:
            batch_size: number of slices; with `latents`, their number instead.
            generator: source of randomness, of open conditions and of latents; a list gives each slice its own.
            latents: (B, latent_dim), to be used instead of random ones.
            class_labels: what to show as a label, or a list or array with one entry each, of labels or names. A
                string of names, "HCM ED mid", is the old form of `conditions` and will go.
            output_type: "pil", "np" or "pt", see `PairedPipelineOutput`.
            return_dict: whether to return a `PairedPipelineOutput` or a tuple of its parts.
            conditions: what to show, {"group": "HCM", "phase": "ED", "level": "mid", "wall_thickness": 21.0}, for all
                slices or a list with one entry each. What is not named keeps its default, which the group has. Words
                that are open, or "any", are drawn as often as they occurred in training; an open wall thickness is
                left to the network. It is the greatest of the slice, in mm.

        Raises:
            InputError: if an argument does not fit the model; it names the argument.
        """
        self._check_output_type(output_type)
        if isinstance(class_labels, str):
            warnings.warn("class_labels as a string is deprecated; give conditions.", FutureWarning, stacklevel=3)
        asked: Asked | Sequence[Asked] | np.ndarray | torch.Tensor
        asked = one_of(conditions=conditions, class_labels=class_labels)
        if latents is not None:
            self._check_latents(latents)
            batch_size = len(latents)
        labels = self.draw_labels(batch_size, generator, asked)
        walls, amounts = self.find_walls(batch_size, asked)
        if latents is None:
            latents = self.network.sample_latents(batch_size, generator)
        latents = latents.to(self._execution_device, self.network.dtype)
        pairs = self._decode(latents, labels, walls.to(latents))
        shown = [
            self.conditions.describe(label) | amount for label, amount in zip(labels.tolist(), amounts, strict=True)
        ]
        output = self._split(pairs, shown, output_type)
        return output if return_dict else (output.images, output.masks, output.conditions)
