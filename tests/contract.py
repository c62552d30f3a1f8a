"""The kinds of pipelines, and how the tests of what all of them can do call one."""

import pytest
import torch

from hcm_hf.pipelines.ddpm import DDPMPipeline
from hcm_hf.pipelines.latent import LatentPipeline
from hcm_hf.pipelines.paired import PairedDDPMPipeline


KINDS = {
    "dcgan": ("dcgan", "paper"),
    "acgan": ("acgan", "paper"),
    "ddpm": ("ddpm", "paper"),
    "tuned": ("ddpm", "tuned"),
}


CLASSES = dict(zip(KINDS, (LatentPipeline, LatentPipeline, DDPMPipeline, PairedDDPMPipeline), strict=True))


DIFFUSION = ("ddpm", "tuned")


every_kind = pytest.mark.parametrize("kind", KINDS)


def call(pipeline, batch_size=2, seed=0, output_type="np", **arguments):
    steps = {"num_inference_steps": 3} if pipeline.denoises else {}
    generator = torch.Generator().manual_seed(seed)
    return pipeline(batch_size, generator=generator, output_type=output_type, **steps | arguments)
