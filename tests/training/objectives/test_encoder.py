import math
from dataclasses import replace

import pytest
import torch
from game import LOG3
from torch import nn

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.cohort import PHASES, STRUCTURES
from hcm_hf.data.slices import SliceBatch, Slices
from hcm_hf.models import SliceEncoder
from hcm_hf.training.objectives.encoder import SliceRecognition, brier_score, soft_dice_loss


# The encoder of the evaluation.


def test_brier_score_by_hand():
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0], [LOG3, 0.0, -100.0]])  # 1/2, 1/4, 1/4 and 3/4, 1/4, 0
    first, second = 1 / 4 + 1 / 16 + 1 / 16, 9 / 16 + 9 / 16
    assert brier_score(logits, torch.tensor([0, 1])).item() == pytest.approx((first + second) / 2)
    certain = 100 * torch.eye(3)
    assert brier_score(certain, torch.arange(3)).item() == pytest.approx(0, abs=1e-6)
    assert brier_score(certain, torch.tensor([1, 2, 0])).item() == pytest.approx(2)
    assert brier_score(torch.zeros(2, 5), torch.tensor([0, 4])).item() == pytest.approx(16 / 25 + 4 / 25)


def certain_of(masks, number=4):
    return 100 * nn.functional.one_hot(masks, number).permute(0, 3, 1, 2).float()


def test_soft_dice_loss_of_perfect_disjoint_and_absent_structures():
    masks = torch.arange(4).repeat_interleave(8).expand(3, 32, 32).contiguous()  # four bands of 256 pixels
    assert soft_dice_loss(certain_of(masks), masks).item() == pytest.approx(0, abs=1e-3)
    assert soft_dice_loss(certain_of((masks + 1) % 4), masks).item() == pytest.approx(1, abs=1e-3)
    empty = torch.zeros_like(masks)
    assert soft_dice_loss(certain_of(empty), empty).item() == pytest.approx(0, abs=1e-3)
    half = masks.clone()
    half[:, ::2] = 0  # every second row: half of every structure is found
    assert soft_dice_loss(certain_of(half), masks).item() == pytest.approx(1 - 2 / 3, abs=1e-3)
    assert soft_dice_loss(certain_of(masks), empty).item() == pytest.approx(1, abs=2e-3)


def test_soft_dice_loss_by_hand_is_of_the_whole_batch():
    """Two structures; of the first the pixels' probabilities are 1/2 and 3/4, of the second, which is absent, 0."""
    logits = torch.tensor([[0.0, 0.0, -100.0], [0.0, LOG3, -100.0]])[:, :, None, None]
    masks = torch.tensor([1, 0]).view(2, 1, 1)
    first = (2 * 1 / 2 + 1) / (1 / 2 + 3 / 4 + 1 + 1)
    assert soft_dice_loss(logits, masks).item() == pytest.approx(1 - (first + 1) / 2, rel=1e-5)
    alone = [soft_dice_loss(logits[i : i + 1], masks[i : i + 1]).item() for i in range(2)]
    expected = [1 - ((2 * 1 / 2 + 1) / (1 / 2 + 1 + 1) + 1) / 2, 1 - (1 / (3 / 4 + 1) + 1) / 2]
    assert alone == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def recognition():
    """In eval mode, in which nothing is drawn but the augmentation and slices are seen each by itself."""
    torch.manual_seed(0)
    return SliceRecognition(SliceEncoder(STRUCTURES, GROUPS, PHASES, 16, (4, 8))).eval()


@pytest.fixture
def labelled():
    generator = torch.Generator().manual_seed(1)
    whole = [torch.randint(high, (6,), generator=generator) for high in (5, 2)]
    return SliceBatch(
        torch.rand(6, 1, 16, 16, generator=generator) * 2 - 1,
        torch.randint(4, (6, 16, 16), generator=generator),
        *whole,
        torch.rand(6, generator=generator),
    )


def selected(batch, rows):
    parts = {name: value[rows] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return replace(batch, **parts)


def test_recognition_is_the_sum_of_its_tasks(recognition, labelled):
    seen = recognition.encoder(labelled.images)
    expected = (
        brier_score(seen.group_logits, labelled.class_labels) / 5
        + brier_score(seen.phase_logits, labelled.phases)
        + (seen.positions - labelled.positions).square().mean()
        + soft_dice_loss(seen.mask_logits, labelled.masks)
    )
    torch.testing.assert_close(recognition.validation_loss(labelled), expected)


def test_recognition_is_trained_by_cross_entropies_on_augmented_slices(recognition, labelled, monkeypatch):
    flipped = lambda images, masks, draws, interpolation: (images.flip(3), masks.flip(2))  # noqa: E731
    monkeypatch.setattr("hcm_hf.data.augmentation.augment", flipped)
    ((name, loss),) = recognition.losses(labelled)
    seen, masks = recognition.encoder(labelled.images.flip(3)), labelled.masks.flip(2)
    group = -(0.9 * seen.group_logits.log_softmax(1)[torch.arange(6), labelled.class_labels])
    group = group - 0.1 * seen.group_logits.log_softmax(1).mean(1)
    expected = (
        group.mean() / 5
        + nn.functional.cross_entropy(seen.phase_logits, labelled.phases)
        + (seen.positions - labelled.positions).square().mean()
        + nn.functional.cross_entropy(seen.mask_logits, masks)
        + soft_dice_loss(seen.mask_logits, masks)
    )
    assert name == "encoder"
    torch.testing.assert_close(loss, expected)


def test_what_a_slice_has_no_label_for_does_not_count(recognition, labelled):
    """Phase and mask are missing in half of the slices: their tasks are those of the other half alone."""
    phases, masks = labelled.phases.clone(), labelled.masks.clone()
    phases[::2], masks[::2] = -1, -1
    part = replace(labelled, phases=phases, masks=masks)
    known = selected(labelled, slice(1, None, 2))
    seen, of_known = (recognition.encoder(batch.images) for batch in (labelled, known))
    expected = (
        brier_score(seen.group_logits, labelled.class_labels) / 5
        + (seen.positions - labelled.positions).square().mean()
        + brier_score(of_known.phase_logits, known.phases)
        + soft_dice_loss(of_known.mask_logits, known.masks)
    )
    torch.testing.assert_close(recognition.validation_loss(part), expected)


def test_a_batch_without_phases_and_masks_still_teaches(recognition, labelled):
    missing = replace(labelled, phases=torch.full_like(labelled.phases, -1), masks=labelled.masks * 0 - 1)
    torch.manual_seed(2)
    ((_, loss),) = recognition.losses(missing)
    loss.backward()
    assert loss.isfinite() and recognition.validation_loss(missing).isfinite()
    grads = {name: parameter.grad for name, parameter in recognition.encoder.named_parameters()}
    assert all(grad.isfinite().all() for grad in grads.values() if grad is not None)
    assert all(grads[name].abs().sum() > 0 for name in ("to_group.weight", "to_position.weight"))
    assert grads["down_blocks.0.0.weight"].abs().sum() > 0


def test_every_process_has_a_gradient_of_every_parameter_to_average(recognition, labelled):
    """Processes add up gradients one after another; one whose slices have no masks must not skip its turn."""
    missing = replace(labelled, phases=torch.full_like(labelled.phases, -1), masks=labelled.masks * 0 - 1)
    ((_, loss),) = recognition.losses(missing)
    loss.backward()
    assert all(parameter.grad is not None for parameter in recognition.encoder.parameters())


def test_validation_of_recognition_is_of_slices_as_they_are_in_any_order(recognition, labelled):
    values = []
    for seed, order in enumerate((slice(None), [3, 1, 0, 5, 4, 2])):
        torch.manual_seed(seed)
        values.append(recognition.validation_loss(selected(labelled, order)))
    torch.testing.assert_close(*values)


def test_training_losses_of_recognition_follow_the_seed_of_the_step(recognition, labelled):
    values = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        ((_, loss),) = recognition.losses(labelled)
        values.append(loss.item())
    assert values[0] == values[1] != values[2]


def test_augmentation_does_not_depend_on_the_number_of_processes(recognition, labelled, monkeypatch):
    """Two halves see the numbers of the whole."""
    seen = []
    monkeypatch.setattr("hcm_hf.data.augmentation.augment", lambda *batch: seen.append(batch[2]) or batch[:2])
    for index, number in ((0, 1), (0, 2), (1, 2)):
        torch.manual_seed(3)
        part = selected(labelled, slice(index, None, number))
        next(recognition.losses(replace(part, process_index=index, num_processes=number)))
    whole, first, second = seen
    assert torch.equal(whole[::2], first) and torch.equal(whole[1::2], second)
    assert len(whole.unique(dim=0)) == 6 and 0 <= whole.min() < 0.2 and 0.8 < whole.max() <= 1


@pytest.mark.parametrize("training", [False, True])
def test_a_preview_shows_slices_and_their_segmentation(recognition, labelled, training):
    """As the encoder segments when it is used, also in the middle of training, which goes on as it was."""
    shown = [0, 0, 1, 2, 2, 3, 4, 5]
    predicted = recognition.encoder(labelled.images[shown]).mask_logits.argmax(1)
    before = {name: tensor.clone() for name, tensor in recognition.state_dict().items()}
    images = recognition.train(training).preview(labelled)
    assert images.shape == (16, 16, 16, 1) and images.min() >= 0 and images.max() <= 1
    torch.testing.assert_close(torch.from_numpy(images[:8, ..., 0]), (labelled.images[shown, 0] + 1) / 2)
    torch.testing.assert_close(torch.from_numpy(images[8:, ..., 0]) * 3, predicted.float())
    assert all(torch.equal(tensor, before[name]) for name, tensor in recognition.state_dict().items())
    assert recognition.encoder.training == training


def test_a_tiny_encoder_learns_the_synthetic_cohort(splits):
    torch.manual_seed(0)
    train, heldout = (Slices(splits[name], ("HCM", "NOR")) for name in ("train", "validation"))
    objective = SliceRecognition(SliceEncoder(STRUCTURES, GROUPS, PHASES, 16, (8, 16)))
    optimizer = torch.optim.Adam(objective.parameters(), lr=5e-3)
    validation = heldout.batch(slice(None))
    objective.eval()
    with torch.no_grad():
        before = objective.validation_loss(validation).item()
    objective.train()
    for _ in range(80):
        ((_, loss),) = objective.losses(train.batch(torch.randint(len(train), (16,)).tolist()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    objective.eval()
    with torch.no_grad():
        assert objective.validation_loss(validation).item() < 0.7 * before
