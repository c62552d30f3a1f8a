import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from hcm_hf.models.paired import build_paired_scheduler
from hcm_hf.models.unet import build_scheduler, build_unet, convert_scheduler
from hcm_hf.utils.errors import InputError


def test_unet_is_stock_and_of_one_channel():
    unet = build_unet(16, (4, 8))
    assert type(unet) is UNet2DModel
    assert unet(torch.zeros(2, 1, 16, 16), torch.tensor([0, 999])).sample.shape == (2, 1, 16, 16)


def test_attention_is_at_the_lowest_level():
    config = build_unet().config
    assert config.down_block_types == ("DownBlock2D",) * 3 + ("AttnDownBlock2D",)
    assert config.up_block_types == ("AttnUpBlock2D",) + ("UpBlock2D",) * 3


@pytest.mark.parametrize("sample_size", [12, 8, 0])
def test_sizes_that_do_not_halve_are_refused(sample_size):
    with pytest.raises(ValueError, match=f"sample_size is {sample_size}; 4 levels need a multiple of 8, 16 or more"):
        build_unet(sample_size)


def test_scheduler_is_the_papers():
    scheduler = build_scheduler()
    assert type(scheduler) is DDPMScheduler and scheduler.config.prediction_type == "epsilon"
    torch.testing.assert_close(scheduler.betas, torch.linspace(1e-4, 0.02, 1000))


def test_the_thousand_steps_are_all_steps():
    scheduler, steps = convert_scheduler(build_scheduler(), "ddpm")
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == list(range(999, -1, -1))


@pytest.mark.parametrize("steps", [1, 2, 4, 20, 100, 1000])
def test_fine_steps_start_at_the_noise_and_grow_shorter(steps):
    scheduler, _ = convert_scheduler(build_paired_scheduler(), "sde-dpmsolver++")
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    assert len(timesteps) == steps and timesteps[0] == 999 and timesteps[-1] >= 0
    lengths = -timesteps.diff()
    assert (lengths > 0).all() and (lengths.diff() <= 1).all()  # but for rounding
    if steps == 4:
        assert timesteps.tolist() == [999, 561, 249, 61]


def test_unknown_scheduler_lists_those_that_exist():
    with pytest.raises(InputError, match=r"choose among ddpm, ddim, dpmsolver\+\+, sde-dpmsolver\+\+, unipc"):
        convert_scheduler(build_scheduler(), "heun")
