import pytest
import torch
from tiny import build_tiny

from hcm_hf.data.slices import SliceBatch, Slices
from hcm_hf.pipelines.auto import HCMPipeline


@pytest.fixture
def batch(splits) -> SliceBatch:
    return Slices(splits["train"], ("HCM", "NOR")).batch(slice(16))


def test_each_network_learns_from_its_own_loss(batch):
    student = build_tiny("ddpm", recipe="crisp_student")
    teacher = [one.clone() for one in student.teacher.unet.parameters()]
    for network, loss in student.losses(batch):
        student.zero_grad()
        loss.backward()
        moved = {
            name for name, child in student.named_children() if any(one.grad is not None for one in child.parameters())
        }
        assert moved == {network} and loss.isfinite()
    assert all(torch.equal(*pair) for pair in zip(teacher, student.teacher.unet.parameters(), strict=True))


def test_the_discriminators_gradient_has_its_share_of_the_matchings_length():
    student = build_tiny("ddpm", recipe="crisp_student", adversarial_weight=0.25)
    slope, direction = torch.randn(2, 3, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    slope[:, 0] *= 100
    scaled = student.scaled(slope, direction)
    for part in (slice(0, 1), slice(1, None)):
        for one, other, before in zip(scaled[:, part], direction[:, part], slope[:, part], strict=True):
            assert one.norm().item() == pytest.approx(0.25 * other.norm().item(), rel=1e-4)
            assert torch.cosine_similarity(one.ravel(), before.ravel(), dim=0).item() == pytest.approx(1, abs=1e-5)
    assert not student.scaled(torch.zeros_like(slope), direction).any()


def test_the_discriminator_sees_pixels_with_masks_at_one(batch):
    student = build_tiny("ddpm", recipe="crisp_student")
    assert student.mask_scale == 0.5
    pairs, asked = student.draw_pairs(batch)
    whole = student.pixels(pairs)
    assert whole.shape == (16, 4, 16, 16) and set(whole[:, 1:].unique().tolist()) <= {-1.0, 1.0}
    assert set(asked) == {"class_labels", "wall_thickness"}
    assert torch.equal(whole[:, 1:], torch.nn.functional.pixel_shuffle(2 * pairs, student.patch_size)[:, 1:])


def test_a_student_of_one_step_saves_and_loads_with_its_teachers_conditions(batch, tmp_path):
    student = build_tiny("ddpm", recipe="crisp_student")
    student.pipeline().save_pretrained(tmp_path)
    pipeline = HCMPipeline.from_pretrained(tmp_path)
    assert pipeline.sampling_defaults.num_inference_steps == 1 and pipeline.config.mask_scale == 0.5
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    asked = {"group": "HCM", "wall_thickness": 12.0}
    output = pipeline(2, torch.Generator().manual_seed(0), conditions=asked, output_type="np")
    assert output.masks.shape == (2, 16, 16) and output.conditions[0]["wall_thickness"] == 12.0
