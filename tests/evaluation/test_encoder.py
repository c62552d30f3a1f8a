import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_encoder, save_instrument

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.cohort import PHASES, STRUCTURES
from hcm_hf.evaluation.encoder import (
    Encoder,
    Instrument,
    Predictions,
    check_encoder,
    encoder_quality,
    hash_encoder,
    load_encoder,
)
from hcm_hf.evaluation.images import RealSlices, read_split
from hcm_hf.evaluation.typed import plain
from hcm_hf.models import VAE, SliceEncoder
from hcm_hf.utils.errors import InputError


WEIGHTS = "diffusion_pytorch_model.safetensors"


def build(seed=0):
    torch.manual_seed(seed)
    return SliceEncoder(STRUCTURES, GROUPS, PHASES, 16, (4, 8)).eval()


def save(folder, network=None, **written):
    return save_encoder(folder, network or build(), **written)


# The folder.


@pytest.mark.parametrize("inside", ["", "best"])
def test_both_runs_or_their_best_are_loaded(tmp_path, inside):
    save_instrument(tmp_path / "features" / inside, build(0))
    save_instrument(tmp_path / "segmenter" / inside, build(1))
    encoder = load_encoder(tmp_path)
    assert encoder.source == str(tmp_path) and encoder.features.hash != encoder.segmenter.hash
    for seed, one in enumerate((encoder.features, encoder.segmenter)):
        assert (one.version, one.train_patients) == ("9.9", {"patient001": ["abc"]})
        assert len(one.hash) == 16 and int(one.hash, 16) >= 0
        images = np.random.default_rng(0).random((3, 16, 16), np.float32)
        expected = build(seed)(torch.from_numpy(images)[:, None] * 2 - 1).features
        np.testing.assert_array_equal(one.predict(images).features, expected.detach().numpy())


@pytest.mark.parametrize("name", ["features", "segmenter"])
def test_the_hash_changes_with_one_weight_and_with_nothing_else(tmp_path, name):
    first = load_encoder(save(tmp_path / "one"))
    assert hash_encoder(tmp_path / "one") == (first.features.hash, first.segmenter.hash)
    hashes = {one: vars(first)[one].hash for one in ("features", "segmenter")}
    other = load_encoder(save(tmp_path / "two", version="1"))
    assert {one: vars(other)[one].hash for one in hashes} == hashes
    weights = load_file(tmp_path / "one" / name / WEIGHTS)
    weights["to_position.bias"] += 1e-6
    save_file(weights, tmp_path / "one" / name / WEIGHTS, {"format": "pt"})
    changed = load_encoder(tmp_path / "one")
    assert [one for one in hashes if vars(changed)[one].hash != hashes[one]] == [name]


def test_the_hash_is_of_the_configuration_too(tmp_path):
    """The same weights with the groups named in another order are another network."""
    first = load_encoder(save(tmp_path)).segmenter
    path = tmp_path / "segmenter" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"groups": GROUPS[::-1]}))
    assert load_encoder(tmp_path).segmenter.hash != first.hash


def without(folder, key):
    weights = load_file(folder / WEIGHTS)
    del weights[key]
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def asks(folder, **options):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | options))


DAMAGE = {
    "cut weights": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]),
    "no weights": lambda folder: (folder / WEIGHTS).unlink(),
    "a weight is missing": lambda folder: without(folder, "to_mask.weight"),
    "a buffer under another name": lambda folder: without(folder, "down_blocks.0.1.num_batches_tracked"),
    "a thousand layers": lambda folder: asks(folder, block_out_channels=[2] * 1000),
    "layers that no memory holds": lambda folder: asks(folder, block_out_channels=[2, 10**12]),
    "groups that are no names": lambda folder: asks(folder, groups=list(range(len(GROUPS)))),
    "half a configuration": lambda folder: (folder / "config.json").write_text('{"_class_name": "Slice'),
    "no configuration": lambda folder: (folder / "config.json").write_text("[]"),
    "patients unknown": lambda folder: (folder / "training_config.json").write_text('{"version": "1"}'),
    "bytes": lambda folder: (folder / "training_config.json").write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("name", ["features", "segmenter"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_in_one_sentence(tmp_path, damage, name):
    DAMAGE[damage](save(tmp_path) / name)
    with pytest.raises(InputError, match=f"The encoder in {tmp_path / name} is damaged; train it again") as refusal:
        load_encoder(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"encoder {tmp_path} holds no encoder: .* scripts/train_encoder.py"):
        load_encoder(tmp_path)
    with pytest.raises(InputError, match=f"encoder {tmp_path / 'missing'} does not exist; name a folder"):
        load_encoder(tmp_path / "missing")
    save(tmp_path, VAE(16, latent_dim=2, base_channels=2))
    with pytest.raises(InputError, match=f"encoder {tmp_path} holds another model; .* scripts/train_encoder.py"):
        load_encoder(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    """Earlier versions trained one network for both; its folder holds no others."""
    save_instrument(tmp_path / "best", build())
    with pytest.raises(InputError, match="it has no network in 'features'; train both with scripts/train_encoder.py"):
        load_encoder(tmp_path)
    save_instrument(tmp_path / "features", build())
    with pytest.raises(InputError, match="it has no network in 'segmenter'; train both"):
        load_encoder(tmp_path)


# What it sees.


def test_images_are_seen_in_their_range_and_in_any_number():
    """The same at any size of batch; 0 is black and 1 is white."""
    encoder = Instrument(build(), "", "", {})
    images = np.random.default_rng(0).random((70, 16, 16), np.float32)
    predicted = encoder.predict(images)
    assert predicted.masks.shape == (70, 16, 16) and predicted.masks.dtype == np.uint8 and predicted.masks.max() <= 3
    assert predicted.features.shape == (70, 8) and predicted.phases.shape == predicted.positions.shape == (70,)
    np.testing.assert_allclose(np.exp(predicted.group_log_probabilities).sum(1), 1, rtol=1e-5)
    assert predicted.group_names == GROUPS
    for part, alone in zip(predicted[:-1], encoder.predict(images[66:67])[:-1], strict=True):
        np.testing.assert_allclose(part[66:67], alone, rtol=1e-4, atol=1e-5)
    output = build()(torch.from_numpy(images)[:, None] * 2 - 1)
    np.testing.assert_array_equal(predicted.masks, output.mask_logits.argmax(1).numpy())
    np.testing.assert_array_equal(predicted.phases, output.phase_logits.argmax(1).numpy())


@pytest.mark.parametrize("groups", [["HCM"], ["HCM", "NOR"], list(GROUPS[:4])])
def test_log_odds_are_those_of_the_groups_against_the_rest(groups):
    odds = np.random.default_rng(0).dirichlet(np.ones(5), 20)
    predicted = Predictions(*[np.zeros(20)] * 2, np.log(odds).astype(np.float32), *[np.zeros(20)] * 2, GROUPS)
    chosen = odds[:, [GROUPS.index(group) for group in groups]].sum(1)
    np.testing.assert_allclose(predicted.log_odds(groups), np.log(chosen / (1 - chosen)), rtol=1e-4, atol=1e-5)


def test_log_odds_of_certain_slices_stay_finite():
    logs = torch.tensor([[-200.0, 0, -200, -200, -200], [0, -200.0, 0, 0, 0]]).log_softmax(1).numpy()
    predicted = Predictions(*[np.zeros(2)] * 2, logs, *[np.zeros(2)] * 2, GROUPS)
    np.testing.assert_allclose(predicted.log_odds(["HCM"]), [200 - np.log(4), -200 - np.log(4)], rtol=1e-6)


# Is it the instrument for these slices?


@pytest.fixture(scope="module")
def real(splits):
    return {split: read_split(splits, split) for split in ("train", "validation", "test")}


@pytest.fixture
def encoder(real):
    one = Instrument(build(), "1", "0", dict(real["train"].identities))
    return Encoder(one, one, "runs/encoder")


@pytest.fixture(params=["features", "segmenter"])
def with_patients(request, encoder):
    """The encoder with one network changed, which has learnt from these patients too."""

    def changed(**patients):
        one = vars(encoder)[request.param]
        return replace(encoder, **{request.param: replace(one, train_patients=one.train_patients | patients)})

    return changed


def test_the_instrument_of_a_dataset_passes_whatever_the_groups(encoder, real):
    check_encoder(encoder, real["train"], real["test"])
    check_encoder(encoder, *(real[split].of_groups(["HCM"]) for split in ("train", "test")))


def refusal(*arguments):
    with pytest.raises(InputError) as caught:
        check_encoder(*arguments)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("encoder runs/encoder was trained on ")
    return str(caught.value)


def test_a_heldout_patient_that_was_seen_is_known_by_a_volume_not_by_name(encoder, with_patients, real):
    name, volumes = next(iter(real["test"].identities.items()))
    seen = with_patients(somebody=["another", volumes[-1]])
    assert f"trained on patient {name}, who is held out here" in refusal(seen, real["train"], real["test"])
    check_encoder(with_patients(**{name: ["another"]}), real["train"], real["test"])
    renamed = dict(zip("abcdefghijk", encoder.features.train_patients.values(), strict=False))
    one = replace(encoder.features, train_patients=renamed)
    check_encoder(Encoder(one, one, "runs/encoder"), real["train"], real["test"])


def test_a_training_patient_that_was_not_seen_means_other_data(encoder, with_patients, real):
    name = list(encoder.features.train_patients)[-1]
    for volumes in (["another"], []):
        message = refusal(with_patients(**{name: volumes}), real["train"], real["test"])
        assert f"trained on other data: it has not seen {name}, a training patient" in message


def test_another_size_is_refused(encoder, real):
    larger = replace(real["test"], images=np.zeros((len(real["test"].images), 32, 32), np.float32))
    assert "slices of 16 px, the dataset's have 32" in refusal(encoder, real["train"], larger)


# How far it can be trusted.


@dataclass
class Oracle:
    """Answers what it is told to."""

    predicted: Predictions
    hash: str = "0123456789abcdef"
    knows = Instrument.knows

    @property
    def group_names(self):
        return self.predicted.group_names

    def predict(self, images):
        assert len(images) == len(self.predicted.masks)
        return self.predicted


def slices(n_patients=6, per_patient=4, seed=0):
    """Slices of patients of two groups, half in ED, with random masks."""
    n = n_patients * per_patient
    generator = np.random.default_rng(seed)
    patients = np.arange(n) // per_patient
    return RealSlices(
        images=np.zeros((n, 8, 8), np.float32),
        masks=generator.integers(0, 4, (n, 8, 8)).astype(np.int8),
        patients=np.array([f"patient{i}" for i in patients]),
        groups=np.where(patients % 2, "HCM", "NOR"),
        phases=np.arange(n) % 2,
        positions=generator.random(n).astype(np.float32),
        identities={},
    )


def truth(heldout, **changes):
    logs = np.full((len(heldout.images), 5), -9.0, np.float32)
    logs[np.arange(len(logs)), [GROUPS.index(group) for group in heldout.groups]] = -0.01
    features = np.zeros((len(logs), 2), np.float32)
    masks = heldout.masks.clip(0).astype(np.uint8)
    predicted = Predictions(features, masks, logs, heldout.phases, heldout.positions, GROUPS)
    return Oracle(predicted._replace(**changes))


NUMBERS = ["dice_rv", "dice_myocardium", "dice_lv", "auc_slice", "auc_patient", "phase_accuracy", "position_error"]


def test_one_who_knows_the_truth_scores_perfectly():
    heldout = slices()
    quality = encoder_quality(truth(heldout), heldout, ["HCM"])
    assert list(quality) == NUMBERS
    for name, found in quality.items():
        assert found.value == found.low == found.high == (0 if name == "position_error" else 1)
        expected = {"protocol": "encoder", "n_real": 24, "n_patients": 6, "encoder": "0123456789abcdef"}
        assert expected.items() <= vars(found).items()
    assert [quality[name].structure for name in NUMBERS[:3]] == list(STRUCTURES[1:])


def test_dice_is_of_volumes_not_of_slices_by_hand():
    """Of a large and a small slice of one volume, all of the large one is found and nothing of the small one."""
    heldout = slices(2, 2)
    masks = np.zeros((4, 8, 8), np.int8)
    masks[0, :6], masks[1, 0, :4] = 1, 1  # patient 0, both of one volume
    masks[2], masks[3] = 1, 3  # patient 1
    heldout = replace(heldout, masks=masks, phases=np.array([0, 0, 0, 1]))
    seen = masks.astype(np.uint8)
    seen[1] = 0
    seen[2, 4:] = 0
    quality = encoder_quality(truth(heldout, masks=seen), heldout, ["HCM"])
    first, second = 2 * 48 / (48 + 52), 2 * 32 / (32 + 64)
    assert quality["dice_rv"].value == pytest.approx((first + second) / 2)  # where a volume has the structure
    assert quality["dice_lv"].value == 1
    assert quality["dice_myocardium"].value is None and quality["dice_myocardium"].low is None


def test_phases_are_volumes_of_their_own():
    """A large one in ED, all of which is found, and a small one in ES, which is missed: pooled they score .97."""
    heldout = slices(2, 2)
    masks = np.full((4, 8, 8), 3, np.int8)
    masks[1, 1:] = 0
    seen = masks.astype(np.uint8)
    seen[1] = 0
    heldout = replace(heldout, masks=masks, phases=np.array([0, 1, 0, 1]))
    assert encoder_quality(truth(heldout, masks=seen), heldout, ["HCM"])["dice_lv"].value == 3 / 4


def test_slices_without_a_segmentation_do_not_count():
    heldout = slices()
    masks = heldout.masks.copy()
    masks[::3] = -1
    quality = encoder_quality(truth(heldout), replace(heldout, masks=masks), ["HCM"])
    assert [quality[name].value for name in NUMBERS[:3]] == [1, 1, 1]
    quality = encoder_quality(truth(heldout), replace(heldout, masks=np.full_like(masks, -1)), ["HCM"])
    assert [quality[name].value for name in NUMBERS[:3]] == [None] * 3
    assert quality["auc_slice"].value == 1


def test_phases_positions_and_groups_by_hand():
    heldout = slices(4, 2)
    phases, positions = heldout.phases.copy(), heldout.positions + np.float32(0.25)
    phases[0] = 1 - phases[0]
    logs = np.full((8, 5), -9.0, np.float32)
    logs[:, GROUPS.index("HCM")] = [-4, 0.0, -3, -1, -4, -5, -1.5, -2]  # patients NOR, HCM, NOR, HCM
    seen = truth(heldout, phases=phases, positions=positions, group_log_probabilities=logs)
    quality = encoder_quality(seen, heldout, ["HCM"])
    assert quality["phase_accuracy"].value == 7 / 8
    assert quality["position_error"].value == pytest.approx(0.25, rel=1e-5)
    assert quality["auc_slice"].value == 12 / 16  # the second slice is above all four of the others
    assert quality["auc_patient"].value == 3.5 / 4  # means of -2 and -4.5 below -2, as high, and -1.75


def test_intervals_are_a_function_of_the_seed_and_hold_the_value():
    heldout = slices()
    noisy = np.random.default_rng(1).normal(size=(24, 5)).astype(np.float32)
    noisy[:, 1] += heldout.groups == "HCM"
    seen = truth(heldout, group_log_probabilities=noisy, positions=heldout.positions[::-1])
    quality = encoder_quality(seen, heldout, ["HCM"])
    assert quality == encoder_quality(seen, heldout, ["HCM"])
    assert quality != encoder_quality(seen, heldout, ["HCM"], seed=1)
    for name in ("auc_slice", "auc_patient", "position_error"):
        assert quality[name].low < quality[name].value < quality[name].high


def test_intervals_of_dice_are_over_patients():
    """Of two patients with two volumes each, one is segmented and one is not; resamples hold both, or one of them."""
    heldout = slices(2, 4)
    seen = np.where(np.arange(8)[:, None, None] < 4, heldout.masks, 0).astype(np.uint8)
    quality = encoder_quality(truth(heldout, masks=seen), heldout, ["HCM"])
    for name in NUMBERS[:3]:
        assert quality[name].value == 0.5
        assert (quality[name].low, quality[name].high) == pytest.approx((0, 1), abs=0.05)


def test_one_who_does_not_know_the_groups_gives_no_diagnosis():
    heldout = slices()
    other = replace(heldout, groups=np.where(heldout.groups == "HCM", "HCM", "athlete"))
    quality = encoder_quality(truth(heldout), other, ["HCM"])
    assert list(quality) == [name for name in NUMBERS if "auc" not in name]


def test_the_order_of_the_groups_is_the_networks_own():
    heldout = slices()
    seen = truth(heldout)
    turned = seen.predicted._replace(
        group_log_probabilities=seen.predicted.group_log_probabilities[:, ::-1], group_names=GROUPS[::-1]
    )
    assert encoder_quality(Oracle(turned), heldout, ["HCM"]) == encoder_quality(seen, heldout, ["HCM"])


def test_one_group_alone_has_no_auc():
    heldout = slices()
    heldout = replace(heldout, groups=np.full(24, "HCM"))
    quality = encoder_quality(truth(heldout), heldout, ["HCM"])
    assert quality["auc_slice"].value is None and quality["auc_patient"].value is None
    json.dumps(plain(quality), allow_nan=False)
