import numpy as np
import pytest
import torch

from hcm_hf.data.acdc import GROUPS
from hcm_hf.models import ACGANDiscriminator, ACGANGenerator
from hcm_hf.pipelines.latent import LatentPipeline
from hcm_hf.utils.errors import InputError


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return ACGANGenerator(GROUPS, "HCM", 16, latent_dim=6, base_channels=4).eval()


def test_classes_are_the_groups_of_acdc(generator):
    assert tuple(generator.config.class_names) == tuple(GROUPS)


def test_the_class_changes_the_image(generator):
    latents = generator.sample_latents(1).expand(5, -1)
    images = generator.decode(latents, torch.arange(5))
    assert images.shape == (5, 1, 16, 16)
    assert len(torch.unique(images.flatten(1), dim=0)) == 5


@pytest.mark.parametrize(
    ("class_labels", "indices"),
    [
        (None, [1, 1, 1]),  # HCM
        ("RV", [4, 4, 4]),
        (3, [3, 3, 3]),
        (["NOR", "HCM", 0], [3, 1, 0]),
        (torch.tensor([2, 1, 0]), [2, 1, 0]),
        (np.int64(2), [2, 2, 2]),
        (np.array(["HCM", "RV", "DCM"]), [1, 4, 0]),
    ],
)
def test_class_labels_by_name_index_or_image(generator, class_labels, indices):
    assert generator.prepare_class_labels(class_labels, 3).tolist() == indices


@pytest.mark.parametrize(
    ("class_labels", "message"),
    [
        ("ABC", "Unknown class_labels 'ABC'; choose among DCM, HCM, MINF, NOR, RV"),
        (5, "Unknown class_labels '5'"),
        (-1, "Unknown class_labels '-1'"),
        (1.0, "Unknown class_labels '1.0'"),
        ([["HCM"], "HCM", "HCM"], "Unknown class_labels '.'HCM'.'"),
        ([1.0, 1.0, 1.0], "Unknown class_labels '1.0'"),
        (torch.ones(3), "Unknown class_labels '1.0'"),
        (["HCM", "NOR"], "class_labels has 2 entries for 3 images"),
    ],
)
def test_bad_class_labels_are_named(generator, class_labels, message):
    with pytest.raises(InputError, match=message):
        LatentPipeline(generator)(3, class_labels=class_labels)


def test_pipeline_makes_hcm_unless_told_otherwise(generator):
    pipeline = LatentPipeline(generator)
    latents = generator.sample_latents(2)
    images = {label: pipeline(latents=latents, class_labels=label, output_type="pt").images for label in (None, "HCM")}
    torch.testing.assert_close(images[None], images["HCM"])


def test_controls_are_one_row_per_class(generator):
    latents = generator.sample_latents(3)
    rows = generator.controls(latents)
    assert list(rows) == list(GROUPS)
    assert all(row is latents and label == name for name, (row, label) in rows.items())


def test_discriminator_has_a_source_and_a_class_head():
    source, classes = ACGANDiscriminator(5, 16, base_channels=4)(torch.zeros(3, 1, 16, 16))
    assert source.shape == (3,) and classes.shape == (3, 5)


def test_class_names_are_unlike_and_hold_the_default():
    with pytest.raises(ValueError, match="no two of them the same"):
        ACGANGenerator(("HCM", "HCM"), "HCM", 16)
    with pytest.raises(ValueError, match="default_class is 'HCM'; it must be one of class_names"):
        ACGANGenerator(("DCM", "NOR"), "HCM", 16)
