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


@pytest.mark.parametrize("last_sigma", [0.03, 0.1])
@pytest.mark.parametrize("steps", [2, 10, 20])
def test_the_last_call_is_at_the_noise_level_asked_for(steps, last_sigma):
    scheduler = convert_scheduler(cosine_schedule(), "sde-dpmsolver++")[0]
    scheduler.register_to_config(last_sigma=last_sigma)
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == steps and scheduler.timesteps[0] == 999
    assert (scheduler.timesteps.diff() < 0).all()
    assert scheduler.sigmas[-2].item() == pytest.approx(last_sigma, rel=0.1) and scheduler.sigmas[-1] == 0


def sample_with(floor: float, seed: int, steps: int = 20, since: float = float("inf")) -> torch.Tensor:
    """Samples by a network that predicts v of an image of .5; noise from `seed` once sigma is below `since`."""
    scheduler = convert_scheduler(cosine_schedule(), "sde-dpmsolver++")[0]
    scheduler.register_to_config(stochastic_floor=floor)
    scheduler.set_timesteps(steps)
    sample = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    first, then = torch.Generator().manual_seed(1), torch.Generator().manual_seed(seed)
    for step, timestep in enumerate(scheduler.timesteps):
        alpha = scheduler.alphas_cumprod[timestep].sqrt()
        sigma = (1 - alpha**2).sqrt()
        noise = (sample - alpha * 0.5 * torch.tanh(sample)) / sigma  # of an image that depends on the sample
        predicted = alpha * noise - sigma * 0.5 * torch.tanh(sample)
        generator = then if scheduler.sigmas[step + 1] < since else first
        sample = scheduler.step(predicted, timestep, sample, generator=generator).prev_sample
    assert scheduler.config.algorithm_type == "sde-dpmsolver++"
    return sample


def test_below_the_stochastic_floor_sampling_is_deterministic():
    assert (sample_with(0.2, seed=2, since=0.2) == sample_with(0.2, seed=3, since=0.2)).all()
    assert (sample_with(0.2, seed=2) != sample_with(0.2, seed=3)).all()  # above it there is noise
    assert (sample_with(0.0, seed=2, since=0.2) != sample_with(0.0, seed=3, since=0.2)).any()


def test_a_floor_above_all_noise_gives_the_deterministic_solver():
    everything = sample_with(1e9, seed=2)
    assert (everything == sample_with(1e9, seed=3)).all() and everything.isfinite().all()


def test_the_floor_and_the_last_call_are_saved_and_loaded(tmp_path):
    scheduler = convert_scheduler(cosine_schedule(), "sde-dpmsolver++")[0]
    scheduler.register_to_config(stochastic_floor=0.2, last_sigma=0.03)
    scheduler.save_pretrained(tmp_path)
    loaded = type(scheduler).from_pretrained(tmp_path)
    assert (loaded.stochastic_floor, loaded.last_sigma) == (0.2, 0.03)
    _, unused = type(scheduler).from_config(loaded.config, return_unused_kwargs=True, colour="red")
    assert unused["colour"] == "red"
    again, _ = convert_scheduler(loaded, "sde-dpmsolver++")
    assert (again.stochastic_floor, again.last_sigma) == (0.2, 0.03)


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
