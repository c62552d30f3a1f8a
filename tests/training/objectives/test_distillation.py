from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from tiny import Linear, best_gains, build_tiny, some_pairs

from hcm_hf.data.slices import SliceBatch, Slices
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.schedulers import convert_scheduler, cosine_schedule
from hcm_hf.training.objectives.distillation import (
    Autoguidance,
    noise_levels,
    posterior_sample,
    trailing_timesteps,
)


@pytest.fixture
def batch(splits) -> SliceBatch:
    return Slices(splits["train"], ("HCM", "NOR")).batch(slice(16))


@pytest.mark.parametrize("calls", [1, 2, 4, 8, 16, 3, 7])
def test_students_learn_at_the_timesteps_that_samplers_stop_at(calls):
    for name in ("ddpm", "ddim"):
        scheduler, _ = convert_scheduler(cosine_schedule(), name)
        scheduler.set_timesteps(calls)
        expected = trailing_timesteps(cosine_schedule(), calls)
        assert scheduler.timesteps.tolist() == expected[1:].flip(0).tolist() and expected[0] == -1


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_students_start_where_noise_is_a_little_more_than_signal(calls):
    """And with the same noise as their teachers, which diffusers' samplers know from the saved configuration."""
    teachers = cosine_schedule()
    scheduler = build_tiny("ddpm", recipe="distilled", num_inference_steps=calls).pipeline().scheduler
    scheduler = type(scheduler).from_config(dict(scheduler.config))
    scheduler.set_timesteps(calls)
    first = scheduler.timesteps[:1]
    assert first == len(scheduler.alphas_cumprod) - 1
    alpha, sigma = noise_levels(teachers, first)
    assert (sigma / alpha).item() == pytest.approx(2.5 * 2 ** (calls - 1), rel=0.04)
    assert torch.equal(scheduler.alphas_cumprod, teachers.alphas_cumprod[: first + 1])


def test_a_random_step_is_that_of_diffusers():
    scheduler = cosine_schedule()
    noisy, origin, noise = some_pairs(), some_pairs(1).clamp(-1, 1), some_pairs(2)
    begin, end = torch.full((6,), 749), torch.full((6,), 499)
    ours = posterior_sample(scheduler, noisy, origin, begin, end, noise)
    alpha, sigma = noise_levels(scheduler, begin)
    reference = DDPMScheduler.from_config(scheduler.config)
    reference.set_timesteps(4)
    velocity = (alpha * noisy - origin) / sigma
    theirs = [
        reference.step(velocity, 749, noisy, generator=torch.manual_seed(seed)).prev_sample for seed in range(400)
    ]
    spread = (ours - posterior_sample(scheduler, noisy, origin, begin, end, 0 * noise)) / noise
    mean = torch.stack(theirs).mean(0)
    assert torch.allclose(mean, posterior_sample(scheduler, noisy, origin, begin, end, 0 * noise), atol=0.2)
    assert torch.stack(theirs).std(0).mean().item() == pytest.approx(spread.mean().item(), rel=0.02)


def test_matched_moments_are_at_rest_when_the_student_is_right(batch):
    """Where auxiliary denoiser and teacher agree, the student is not moved; where they do not, it goes their way."""
    student = build_tiny("ddpm", recipe="distilled")
    losses = student.losses(batch)
    name, loss = next(losses)
    assert name == "auxiliary" and loss > 0
    name, loss = next(losses)  # the auxiliary has not been stepped and still is the teacher
    loss.backward()
    assert name == "unet"
    assert all(not parameter.grad.any() for parameter in student.unet.parameters() if parameter.grad is not None)

    with torch.no_grad():
        for parameter in student.auxiliary.parameters():
            parameter.add_(0.01)
    losses = student.losses(batch)
    next(losses)
    next(losses)[1].backward()
    assert any(parameter.grad.any() for parameter in student.unet.parameters())
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in student.teacher.unet.parameters())


def test_matched_moments_give_a_student_of_one_call_the_spread_of_the_data():
    """Normal data and linear networks: from a student that makes nothing but the mean to one that makes the data."""
    student = build_tiny("ddpm", recipe="distilled", num_inference_steps=1)
    last = student.scheduler.config.num_train_timesteps - 1
    gains = best_gains(student.teacher_scheduler, deviation=0.5)
    student.teacher = SimpleNamespace(unet=Linear(gains))
    student.unet, student.auxiliary = Linear(gains.clone()), Linear(gains.clone())
    alpha, sigma = noise_levels(student.scheduler, torch.tensor([last]))
    spread = lambda: abs(alpha - sigma * student.unet.gains[last]).item()  # noqa: E731  # of x = alpha z - sigma v
    assert spread() < 0.2
    whole = torch.zeros(16, dtype=torch.long)
    batch = SliceBatch(
        torch.zeros(16, 1, 16, 16), torch.zeros(16, 16, 16, dtype=torch.long), whole, whole, torch.rand(16)
    )
    options = {"lr": 0.01, "betas": (0.0, 0.99)}
    optimizers = {name: torch.optim.Adam(net.parameters(), **options) for name, net in student.named_children()}
    for step in range(250):
        torch.manual_seed(step)
        for name, loss in student.losses(batch):
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()
    assert spread() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("calls", [1, 2])
def test_the_first_step_is_held_to_the_teacher_at_every_noise_and_others_within_themselves(batch, calls):
    student = build_tiny("ddpm", recipe="distilled", num_inference_steps=calls)
    stops, asked, starts = trailing_timesteps(student.scheduler, calls).tolist(), [], []
    student.teacher.unet.register_forward_pre_hook(lambda module, inputs: asked.extend(inputs[1].tolist()))
    student.unet.register_forward_pre_hook(lambda module, inputs: starts.extend(inputs[1].tolist()))
    for seed in range(30):
        torch.manual_seed(seed)
        next(student.losses(batch))
    first = [level for level, start in zip(asked, starts, strict=True) if start == stops[-1]]
    others = [level for level, start in zip(asked, starts, strict=True) if start != stops[-1]]
    assert max(first) > 950 > stops[-1] and min(first) >= max(stops[-2], 0)
    assert bool(others) == (calls == 2) and all(0 <= level < stops[1] for level in others)


def test_a_guided_teacher_expects_more_of_what_its_guide_lacks_at_middle_noise():
    expected, weaker = torch.ones(4, 4, 2, 2), torch.zeros(4, 4, 2, 2)
    levels = torch.tensor([0.1, 0.3, 1.9, 2.1])[:, None, None, None]
    pushed = Autoguidance(guidance_weight=1.5, guided_above=0.2, guided_below=2.0).push(expected, weaker, levels)
    assert pushed.mean((1, 2, 3)).tolist() == [1, 1.5, 1.5, 1]


@pytest.mark.parametrize("recipe", ["distilled", "crisp_student"])
def test_a_student_learns_from_its_guided_teacher(recipe):
    guide = build_tiny("ddpm", recipe="tuned" if recipe == "distilled" else "crisp", seed=1).pipeline()
    alone = build_tiny("ddpm", recipe=recipe)
    guide.register_to_config(ranges=alone.ranges)
    guided = build_tiny("ddpm", recipe=recipe, guide=guide)
    noisy, labels = some_pairs()[:, :, :8, :8], torch.zeros(6, dtype=torch.int64)
    for timestep, differs in ((0, False), (400, True), (999, False)):
        asked = noisy, {"class_labels": labels}, torch.full_like(labels, timestep)
        assert torch.equal(alone.expect(*asked), guided.expect(*asked)) is not differs


def test_a_guide_that_predicts_something_else_is_refused():
    guide = build_tiny("ddpm", recipe="tuned", seed=1).pipeline()
    guide.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(ValueError, match="the guide has prediction_type sample, the teacher v_prediction"):
        build_tiny("ddpm", recipe="distilled", guide=guide)
    with pytest.raises(ValueError, match="the guide has mask_scale 0.5, the teacher 1.0"):
        build_tiny("ddpm", recipe="distilled", guide=build_tiny("ddpm", recipe="crisp").pipeline())


def test_a_student_starts_as_its_teacher_and_is_a_pipeline_like_any_other(tmp_path):
    teacher = build_tiny("ddpm", recipe="tuned").pipeline()
    student = build_tiny("ddpm", recipe="distilled", teacher=teacher, seed=1)
    for name, tensor in student.unet.state_dict().items():
        assert torch.equal(tensor, teacher.unet.state_dict()[name])
    student.pipeline().save_pretrained(tmp_path)
    loaded = HCMPipeline.from_pretrained(tmp_path)
    assert (loaded.config.sampler, loaded.config.num_inference_steps) == ("ddpm", 4)
    first, second = (
        pipeline(3, torch.Generator().manual_seed(0), output_type="pt") for pipeline in (student.pipeline(), loaded)
    )
    assert torch.equal(first.images, second.images) and torch.equal(first.masks, second.masks)


def test_only_a_model_of_pairs_of_the_same_size_can_teach():
    with pytest.raises(ValueError, match="the teacher is a DDPMPipeline, and only"):
        build_tiny("ddpm", recipe="distilled", teacher=build_tiny("ddpm").pipeline())
    teacher = build_tiny("ddpm", recipe="tuned").pipeline()
    teacher.register_to_config(patch_size=2)
    with pytest.raises(ValueError, match="makes slices of 32 px, the dataset's have 16"):
        build_tiny("ddpm", recipe="distilled", teacher=teacher)
