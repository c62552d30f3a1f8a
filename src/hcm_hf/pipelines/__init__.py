"""What a user calls: every trained generator is a diffusers pipeline."""

from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.conditions import Conditions
from hcm_hf.pipelines.ddpm import DDPMPipeline
from hcm_hf.pipelines.latent import LatentPipeline
from hcm_hf.pipelines.paired import PairedDDPMPipeline, PairedPipelineOutput
from hcm_hf.pipelines.sampling import Sampling


__all__ = [
    "Conditions",
    "DDPMPipeline",
    "HCMPipeline",
    "LatentPipeline",
    "PairedDDPMPipeline",
    "PairedPipelineOutput",
    "Sampling",
]
