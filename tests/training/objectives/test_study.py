import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny import build_tiny
from torch import nn

from hcm_hf.data.acdc import GROUPS, PHASES, STRUCTURES
from hcm_hf.data.slices import SliceBatch, Slices
from hcm_hf.models import VAE, InfoGANGenerator, SliceEncoder
from hcm_hf.models.unet import build_scheduler
from hcm_hf.training.objectives.study import (
    ACGAN,
    GAN,
    Diffusion,
    Game,
    InfoGAN,
    SliceRecognition,
    VariationalAutoencoder,
    adversarial_loss,
    brier_score,
    describe,
    frozen,
    gaussian_nll,
    gradient_penalty,
    kernel_distance,
    kl_divergence,
    mutual_information,
    soft_dice_loss,
)


def batch_of(images, class_labels=None):
    empty = torch.zeros(len(images), dtype=torch.long)
    labels = empty if class_labels is None else torch.tensor(class_labels)
    return SliceBatch(images, empty, labels, empty, empty.float())


def test_adversarial_loss_by_hand():
    logits = torch.tensor([0.0, math.log(3.0)])  # probabilities 1/2 and 3/4
    assert adversarial_loss(logits, 1.0).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert adversarial_loss(logits, 0.0).item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    smooth = (math.log(2) + 0.9 * math.log(4 / 3) + 0.1 * math.log(4)) / 2
    assert adversarial_loss(logits, 0.9).item() == pytest.approx(smooth)


def test_gradient_penalty_of_a_linear_discriminator():
    linear = nn.Linear(16, 1, bias=False)
    penalty = gradient_penalty(lambda images: linear(images.flatten(1)).flatten(), torch.rand(5, 1, 4, 4))
    assert penalty.item() == pytest.approx(linear.weight.square().sum().item() / 2, rel=1e-5)
    penalty.backward()
    torch.testing.assert_close(linear.weight.grad, linear.weight.detach())


def test_gradient_penalty_of_a_quadratic_discriminator_looks_at_the_real_images():
    images = torch.rand(4, 1, 8, 8) * 2 - 1  # D(x) = |x|^2 / 2 has the gradient x
    penalty = gradient_penalty(lambda x: x.square().sum((1, 2, 3)) / 2, images)
    assert penalty.item() == pytest.approx(images.square().sum((1, 2, 3)).mean().item() / 2, rel=1e-5)
    assert not images.requires_grad


def test_gaussian_likelihood_and_divergence_by_hand():
    images, means = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 2.0], [0.0, -1.0]]]])
    assert gaussian_nll(means, images).item() == pytest.approx((6 + 4 * math.log(2 * math.pi)) / 2)
    mean, log_variance = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(4.0)]])
    assert kl_divergence(mean, log_variance).item() == pytest.approx(0.5 + (4 - 1 - math.log(4)) / 2)
    assert kl_divergence(torch.zeros(3, 2), torch.zeros(3, 2)).tolist() == [0, 0, 0]


def test_gaussian_likelihood_and_divergence_are_those_of_torch():
    images, means, log_variance = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.randn(3, 5)
    expected = -torch.distributions.Normal(means, 1).log_prob(images).sum((1, 2, 3))
    torch.testing.assert_close(gaussian_nll(means, images), expected)
    mean = torch.randn(3, 5)
    posterior, prior = torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0, 1)
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1)
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected)


class FixedVAE(VAE):
    """Encodes all to the same moments and decodes latents to their first number everywhere."""

    def encode(self, images):
        return torch.full((len(images), 2), 0.5), torch.full((len(images), 2), math.log(4.0))

    def decode(self, latents, class_labels=None):
        return latents[:, :1, None, None].expand(-1, 1, 8, 8)


def test_vae_loss_by_hand():
    """Latents .5 + 2 * noise; 64 pixels."""
    objective = VariationalAutoencoder(FixedVAE(8, latent_dim=2, base_channels=2))
    noise = torch.tensor([[0.25, 7.0], [-0.5, 7.0]])  # reconstructions of 1 and -.5
    divergence = 2 * (0.25 + 4 - 1 - math.log(4)) / 2
    errors = (64 * 1.0 + 64 * 0.25) / 2  # the mean of both images' squared errors
    expected = errors / 2 + 32 * math.log(2 * math.pi) + divergence
    assert objective.loss(torch.zeros(2, 1, 8, 8), noise).item() == pytest.approx(expected, rel=1e-6)


class Fixed(nn.Module):
    """A discriminator that answers by the image's mean: above zero (real, here) one thing, below another.

    Its first answer, the source, has a gradient of 1 at each pixel, its others have one of 10: of 8 x 8 pixels, R1 of
    the source is 32.
    """

    def __init__(self, above, below):
        super().__init__()
        self.above, self.below = above, below

    def forward(self, images):
        real = images.mean((1, 2, 3)) > 0
        pairs = zip(self.above, self.below, strict=True)
        pick = [torch.where(real.view(-1, *[1] * above.ndim), above, below) for above, below in pairs]
        slope = images.sum((1, 2, 3)) - images.detach().sum((1, 2, 3))  # zero, with a gradient
        scales = [1, 10, 10][: len(pick)]
        pick = [
            answer + scale * slope.view(-1, *[1] * (answer.ndim - 1))
            for answer, scale in zip(pick, scales, strict=True)
        ]
        return pick[0] if len(pick) == 1 else tuple(pick)


class Dark(InfoGANGenerator):
    """Images of -.5, whatever the latents."""

    def decode(self, latents, class_labels=None):
        return torch.full((len(latents), 1, 8, 8), -0.5)

    forward = decode


def dark_generator():
    return Dark(8, latent_dim=6, num_categories=3, num_continuous=2, base_channels=2)


REAL = torch.full((2, 1, 8, 8), 0.5)
GAME = Game(label_smoothing=0.1, penalty_per_pixel=0.5 / 64)  # a penalty of weight 0.5 at 8 x 8 pixels
PENALTY = 0.5 * 64 / 2
LOG3 = math.log(3.0)  # the logit of 3/4
SMOOTHED = 0.9 * math.log(4 / 3) + 0.1 * math.log(4)  # cross-entropy of 3/4 with a label of .9


def test_gan_losses_by_hand():
    discriminator = Fixed([torch.tensor(LOG3)], [torch.tensor(-LOG3)])  # says 3/4 of real, 1/4 of generated
    losses = dict(GAN(dark_generator(), discriminator, GAME).losses(batch_of(REAL)))
    assert losses["discriminator"].item() == pytest.approx(SMOOTHED + math.log(4 / 3) + PENALTY)
    assert losses["generator"].item() == pytest.approx(math.log(4))


def test_the_weight_of_the_class_loss_scales_it_alone():
    told = torch.tensor([LOG3, 0.0])
    discriminator = Fixed([torch.tensor(LOG3), told], [torch.tensor(-LOG3), -told])
    losses = dict(ACGAN(dark_generator(), discriminator, GAME, class_weight=0.25).losses(batch_of(REAL, [0, 0])))
    source, classes = SMOOTHED + math.log(4 / 3), math.log(4 / 3) + math.log(4)
    assert losses["discriminator"].item() == pytest.approx(source + classes / 4 + PENALTY)
    assert losses["generator"].item() == pytest.approx(math.log(4) + math.log(4) / 4)


def test_a_lazy_penalty_is_rarer_and_counts_more_so_that_its_mean_stays():
    discriminator = Fixed([torch.tensor(LOG3)], [torch.tensor(-LOG3)])
    lazy = GAN(dark_generator(), discriminator, replace(GAME, penalty_interval=4))
    found = []
    for seed in range(400):
        torch.manual_seed(seed)
        found.append(round(next(lazy.losses(batch_of(REAL)))[1].item() - SMOOTHED - math.log(4 / 3), 3))
    assert set(found) == {0.0, 4 * PENALTY}
    assert sum(found) / len(found) == pytest.approx(PENALTY, rel=0.2)


@pytest.mark.parametrize("family", ["gan", "acgan", "infogan"])
def test_discriminators_see_real_and_generated_images_through_the_same_changes(family):
    """In both steps; and what the generator learns comes back through them."""
    objective = build_tiny(family)
    objective.game = replace(objective.game, augmentation=1.0)
    batch = batch_of(torch.rand(6, 1, 16, 16) * 2 - 1, [0] * 6)
    seen = []
    objective.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    objective.generator.register_forward_hook(lambda module, inputs, output: output * 0 + batch.images)
    names = {}
    for name, loss in objective.losses(batch):
        loss.backward()
        names[name] = len(seen)
    real, generated, penalised = seen[:3]
    assert torch.equal(real, generated) and torch.equal(real, penalised) and not torch.equal(real, batch.images)
    assert names == {"discriminator": 3, "generator": 4}
    assert not torch.equal(seen[3], batch.images) and not torch.equal(seen[3], real)  # drawn anew


def test_acgan_losses_by_hand():
    """Equations 6 and 7 of the study: of two classes, real images are told with 3/4, generated ones with 1/4."""
    told = torch.tensor([LOG3, 0.0])
    discriminator = Fixed([torch.tensor(LOG3), told], [torch.tensor(-LOG3), -told])
    losses = dict(ACGAN(dark_generator(), discriminator, GAME).losses(batch_of(REAL, [0, 0])))
    source, classes = SMOOTHED + math.log(4 / 3), math.log(4 / 3) + math.log(4)
    assert losses["discriminator"].item() == pytest.approx(source + classes + PENALTY)  # -(L_S + L_C)
    assert losses["generator"].item() == pytest.approx(math.log(4) + math.log(4))


def test_mutual_information_by_hand():
    category, continuous = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.5, -1.0]])
    logits, means = torch.tensor([[math.log(2.0), 0.0, 0.0]]), torch.tensor([[0.0, 1.0]])  # P = 1/2, 1/4, 1/4
    log_continuous = -(0.25 + 4.0) / 2 - math.log(2 * math.pi)
    expected = math.log(1 / 2) + log_continuous + math.log(3) + 2 * math.log(2)
    assert mutual_information(category, continuous, logits, means).item() == pytest.approx(expected)


def test_mutual_information_is_a_lower_bound_that_a_perfect_reader_of_categories_attains():
    category, nothing = torch.eye(4), torch.zeros(4, 0)
    assert mutual_information(category, nothing, 50 * category, nothing).item() == pytest.approx(math.log(4))
    assert mutual_information(category, nothing, torch.zeros(4, 4), nothing).item() == pytest.approx(0, abs=1e-6)


def test_infogan_losses_by_hand():
    """Both losses are the GAN's less lambda times the bound."""
    reading = [torch.zeros(3), torch.zeros(2)]
    discriminator = Fixed([torch.tensor(LOG3), *reading], [torch.tensor(-LOG3), *reading])
    generator = dark_generator()
    objective = InfoGAN(generator, discriminator, GAME, information_weight=2.0)
    torch.manual_seed(0)
    losses = dict(objective.losses(batch_of(REAL)))
    torch.manual_seed(0)
    bounds = []
    for _ in range(2):  # a reader that knows nothing loses what the continuous codes vary
        codes = generator.split_latents(generator.sample_latents(2))[2]
        bounds.append(-(codes.square().sum(1).mean() / 2 + math.log(2 * math.pi)).item() + 2 * math.log(2))
    assert losses["discriminator"].item() == pytest.approx(
        SMOOTHED + math.log(4 / 3) - 2 * bounds[0] + PENALTY, rel=1e-5
    )
    assert losses["generator"].item() == pytest.approx(math.log(4) - 2 * bounds[1], rel=1e-5)


class Noiseless(nn.Module):
    """Predicts no noise at all."""

    def forward(self, noisy, timesteps):
        self.seen = noisy, timesteps
        return SimpleNamespace(sample=torch.zeros_like(noisy))


def test_diffusion_loss_by_hand():
    """One who predicts no noise errs by the noise's own square; what it sees is equation 4 of the paper."""
    network, scheduler = Noiseless(), build_scheduler()
    objective = Diffusion(network, scheduler)
    images, noise, timesteps = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    loss = objective.loss(images, noise, timesteps)
    assert loss.item() == pytest.approx(noise.square().mean().item(), rel=1e-6)
    alpha = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[timesteps].view(3, 1, 1, 1)
    torch.testing.assert_close(network.seen[0], alpha.sqrt() * images + (1 - alpha).sqrt() * noise)


def test_diffusion_validation_visits_all_timesteps_evenly():
    visited = []

    class Watching(Noiseless):
        def forward(self, noisy, timesteps):
            visited.extend(timesteps.tolist())
            return super().forward(noisy, timesteps)

    loss = Diffusion(Watching(), build_scheduler()).validation_loss(batch_of(torch.zeros(25, 1, 8, 8)))
    assert sorted(visited) == list(range(5, 1000, 10)) and visited != sorted(visited)
    assert loss.item() == pytest.approx(1, abs=0.05)


def slices(number, seed, **change):
    """Noise below a bright disc, whose radius varies."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    radius = 6 + 4 * torch.rand(number, 1, 1, generator=generator) + change.get("wider", 0)
    disc = (torch.hypot(x - 16, y - 16) < radius).float()
    noise = torch.randn(number, 32, 32, generator=generator) * change.get("noise", 0.1)
    return (disc - 0.5 + noise).clamp(-1, 1)[:, None]


def test_kernel_distance_ranks_what_it_should():
    real = slices(40, seed=0)
    same = kernel_distance(slices(200, seed=1), real)
    assert abs(same) < 0.2
    collapsed = slices(1, seed=1).expand(200, -1, -1, -1)
    shifted, smooth = slices(200, seed=1, wider=3), slices(200, seed=1, noise=0.0)
    for worse in (shifted, smooth, collapsed, torch.zeros(200, 1, 32, 32)):
        assert kernel_distance(worse, real) > 3 * max(same, torch.tensor(0.05))


def test_kernel_distance_is_unbiased():
    values = torch.stack([kernel_distance(slices(50, seed=2 * i), slices(50, seed=2 * i + 1)) for i in range(40)])
    assert abs(values.mean()) < 3 * values.std() / 40**0.5


def test_description_is_pooled_pixels_and_the_power_spectrum():
    images = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    pixels, spectrum = describe(images)
    assert pixels.shape == (2, 256) and spectrum.shape == (2, 16)
    torch.testing.assert_close(pixels[0, 0], images[0, 0, :2, :2].mean())
    torch.testing.assert_close(spectrum[:, 0], torch.log(images.sum((1, 2, 3)) ** 2 / 32**2 + 1e-6))
    white = describe(torch.randn(500, 1, 32, 32, dtype=torch.float64))[1].exp().mean(0)
    assert ((white - 1).abs() < 0.2).all()  # a flat spectrum, one at unit variance


def test_frozen_lets_gradients_through_and_is_undone():
    network = nn.Linear(2, 1)
    x = torch.ones(1, 2, requires_grad=True)
    with pytest.raises(RuntimeError), frozen(network):
        network(x).sum().backward()
        raise RuntimeError
    assert x.grad is not None and network.weight.grad is None and network.weight.requires_grad


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
