import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from hcm_hf.errors import InputError
from hcm_hf.models.ddpm import build_scheduler, build_unet, convert_scheduler


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


def test_unknown_scheduler_lists_those_that_exist():
    with pytest.raises(InputError, match=r"choose among ddpm, ddim, dpmsolver\+\+, unipc"):
        convert_scheduler(build_scheduler(), "heun")
