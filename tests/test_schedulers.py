import pytest
import torch
from diffusers import DDPMScheduler

from hcm_hf.schedulers import convert_scheduler, cosine_schedule, linear_schedule
from hcm_hf.utils.errors import InputError


def test_scheduler_is_the_papers():
    scheduler = linear_schedule()
    assert type(scheduler) is DDPMScheduler and scheduler.config.prediction_type == "epsilon"
    torch.testing.assert_close(scheduler.betas, torch.linspace(1e-4, 0.02, 1000))


def test_the_thousand_steps_are_all_steps():
    scheduler, steps = convert_scheduler(linear_schedule(), "ddpm")
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == list(range(999, -1, -1))


@pytest.mark.parametrize("steps", [1, 2, 4, 20, 100, 1000])
def test_fine_steps_start_at_the_noise_and_grow_shorter(steps):
    scheduler, _ = convert_scheduler(cosine_schedule(), "sde-dpmsolver++")
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    assert len(timesteps) == steps and timesteps[0] == 999 and timesteps[-1] >= 0
    lengths = -timesteps.diff()
    assert (lengths > 0).all() and (lengths.diff() <= 1).all()  # but for rounding
    if steps == 4:
        assert timesteps.tolist() == [999, 561, 249, 61]


def test_unknown_scheduler_lists_those_that_exist():
    with pytest.raises(InputError, match=r"choose among ddpm, ddim, dpmsolver\+\+, sde-dpmsolver\+\+, unipc"):
        convert_scheduler(linear_schedule(), "heun")


def test_scheduler_is_the_cosine_schedule_and_predicts_v():
    scheduler = cosine_schedule()
    assert type(scheduler) is DDPMScheduler and scheduler.config.prediction_type == "v_prediction"
    times = torch.arange(1, 1001) / 1000
    level = torch.cos((times + 0.008) / 1.008 * torch.pi / 2).square()
    expected = level / torch.cos(torch.tensor(0.008 / 1.008 * torch.pi / 2)).square()
    torch.testing.assert_close(scheduler.alphas_cumprod[:990], expected[:990], atol=1e-4, rtol=0)  # betas end at .999
