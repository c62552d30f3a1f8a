"""Slices that are generated with their segmentations."""

import json

import nibabel
import numpy as np
import pytest
from PIL import Image
from tiny import pictures

from hcm_hf.data.acdc import GROUPS
from hcm_hf.data.cohort import LEVELS, PHASES
from hcm_hf.data.dataset import load_dataset
from hcm_hf.generation import images as generation
from hcm_hf.generation.images import find_images, generate_images, image_generator
from hcm_hf.pipelines.auto import HCMPipeline
from hcm_hf.pipelines.paired import PairedDDPMPipeline
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.utils.errors import InputError


FEW_STEPS = {"sampling": Sampling({"group": "any"}, num_inference_steps=3)}


@pytest.fixture(scope="module")
def pairs(paired_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "pairs"
    return generate_images(paired_model, folder, 9, batch_size=4, save_npy=True, save_nifti=True, **FEW_STEPS)


def read_mask(path):
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.asarray(picture)


def test_masks_and_manifest_hold_what_the_pipeline_makes(pairs, paired_model):
    pipeline = HCMPipeline.from_pretrained(paired_model)
    pipeline.set_progress_bar_config(disable=True)
    lines = [json.loads(line) for line in (pairs / "manifest.jsonl").read_text().splitlines()]
    assert len({tuple(line[axis] for axis in ("group", "phase", "level")) for line in lines}) > 4
    for index, line in enumerate(lines):
        output = pipeline(1, image_generator(0, index), output_type="np", **FEW_STEPS["sampling"].arguments)
        np.testing.assert_array_equal(read_mask(pairs / line["mask"]), output.masks[0])
        np.testing.assert_allclose(np.load(pairs / f"{index:06}.npy"), output.images[0], atol=1e-5)
        assert line.items() >= output.conditions[0].items()
        assert line["file"] == f"{index:06}.png" and line["mask"] == f"{index:06}_mask.png"
        assert (line["class"], line["scheduler"], line["guidance_scale"]) == ("any", "sde-dpmsolver++", 1)
    masks = np.stack([read_mask(path) for path in sorted(pairs.glob("*_mask.png"))])
    assert np.unique(masks).tolist() == [0, 1, 2, 3] and len(np.unique(masks, axis=0)) == 9
    assert [path.name for path in find_images(pairs)] == [line["file"] for line in lines]


@pytest.mark.parametrize("batch_size", [1, 9])
def test_batch_size_does_not_change_the_masks(pairs, paired_model, tmp_path, batch_size):
    folder = generate_images(paired_model, tmp_path / "images", 9, batch_size=batch_size, **FEW_STEPS)
    assert pictures(folder) == pictures(pairs) and len(pictures(pairs)) == 18
    assert (folder / "manifest.jsonl").read_text() == (pairs / "manifest.jsonl").read_text()


def test_a_rerun_makes_the_missing_mask_and_says_the_same_of_it(pairs, paired_model, tmp_path):
    folder = generate_images(paired_model, tmp_path / "images", 5, **FEW_STEPS)
    (folder / "000002_mask.png").unlink()
    (folder / "manifest.jsonl").unlink()
    kept = (folder / "000004.png").stat().st_mtime_ns
    generate_images(paired_model, folder, 9, **FEW_STEPS)
    assert pictures(folder) == pictures(pairs) and (folder / "000004.png").stat().st_mtime_ns == kept
    assert (folder / "manifest.jsonl").read_text() == (pairs / "manifest.jsonl").read_text()


def test_masks_become_a_label_volume_in_the_place_of_the_images(pairs):
    images, labels = (nibabel.load(pairs / name) for name in ("images.nii.gz", "masks.nii.gz"))
    assert labels.shape == images.shape == (16, 16, 9) and labels.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(labels.affine, images.affine)
    assert labels.header.get_zooms() == images.header.get_zooms() == (8, 8, 1)
    for index in range(9):
        np.testing.assert_array_equal(
            np.asarray(labels.dataobj)[:, :, index].T, read_mask(pairs / f"{index:06}_mask.png")
        )


def test_what_is_asked_for_is_shown_and_goes_into_the_settings(paired_model, tmp_path):
    def made(name, **arguments):
        folder = generate_images(
            paired_model, tmp_path / name, 6, sampling=Sampling(**{"num_inference_steps": 2} | arguments)
        )
        return folder, [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]

    default, lines = made("default")
    assert {line["group"] for line in lines} == {"HCM"} and {line["class"] for line in lines} == {"HCM"}
    _, lines = made("asked", class_labels="NOR ES apex")
    assert {(line["group"], line["phase"], line["level"]) for line in lines} == {("NOR", "ES", "apex")}
    guided, lines = made("guided", guidance_scale=3)
    assert {line["guidance_scale"] for line in lines} == {3} and pictures(guided) != pictures(default)
    for change, message in [
        ({"guidance_scale": 3.0}, "default holds images with guidance_scale 1.0, not 3.0"),
        ({"class_labels": "any"}, "default holds images with class HCM, not any"),
        ({"class_labels": "HCM NOR"}, "class_labels 'HCM NOR' names two of group"),
        ({"guidance_scale": -1.0}, "guidance_scale is -1.0; give 0 or more"),
    ]:
        before = pictures(default)
        with pytest.raises(InputError, match=message):
            made("default", **change)
        assert pictures(default) == before


def test_an_interrupted_run_keeps_masks_and_labels_right(pairs, paired_model, tmp_path, monkeypatch):
    write, count = generation.write_bytes, iter(range(100))

    def interrupted(path, data, lasting):
        if next(count) == 5:  # between a mask and its image
            raise KeyboardInterrupt
        write(path, data, lasting)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(generation, "write_bytes", interrupted)
        generate_images(paired_model, tmp_path / "images", 9, **FEW_STEPS)
    assert len(find_images(tmp_path / "images")) == 2 and len(pictures(tmp_path / "images")) == 5
    generate_images(paired_model, tmp_path / "images", 9, **FEW_STEPS)
    assert pictures(tmp_path / "images") == pictures(pairs)
    assert (tmp_path / "images/manifest.jsonl").read_text() == (pairs / "manifest.jsonl").read_text()


def test_volumes_turn_with_those_of_acdc(pairs, tmp_path):
    made = nibabel.load(pairs / "masks.nii.gz")
    real = nibabel.Nifti1Image(np.asarray(made.dataobj), None)
    real.header.set_sform(np.diag([-1, -1, 1, 1]), 2)  # the whole orientation of an ACDC volume
    real.header["pixdim"][1:4] = 1.5, 1.5, 10
    nibabel.save(real, tmp_path / "acdc.nii.gz")
    turned = [nibabel.as_closest_canonical(one) for one in (made, nibabel.load(tmp_path / "acdc.nii.gz"))]
    np.testing.assert_array_equal(*(np.asarray(one.dataobj) for one in turned))
    assert not np.array_equal(np.asarray(turned[0].dataobj), np.asarray(made.dataobj))


def test_labels_are_those_that_the_images_were_made_with(paired_model, tmp_path, monkeypatch):
    shown, call, draw = {}, PairedDDPMPipeline.__call__, PairedDDPMPipeline.draw_labels

    def noted(pipeline, batch_size, generator, **arguments):
        output = call(pipeline, batch_size, generator, **arguments)
        for image, conditions in zip(output.images, output.conditions, strict=True):
            shown[np.rint(image[..., 0] * 255).astype(np.uint8).tobytes()] = conditions
        return output

    def drawn(pipeline, batch_size, generator=None, asked=None):
        return draw(pipeline, batch_size, None, asked)  # never twice the same

    monkeypatch.setattr(PairedDDPMPipeline, "__call__", noted)
    with monkeypatch.context() as patch:
        patch.setattr(PairedDDPMPipeline, "draw_labels", drawn)
        generate_images(paired_model, tmp_path / "images", 20, batch_size=6, **FEW_STEPS)
    folder = generate_images(paired_model, tmp_path / "images", 60, save_dataset=True, **FEW_STEPS)
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert len(lines) == len(shown) == 60
    for line in lines:
        with Image.open(folder / line["file"]) as picture:
            assert line.items() >= shown[np.asarray(picture).tobytes()].items()
    rows = [row for split in load_dataset(folder / "dataset").values() for row in split]
    for row in rows:
        conditions = shown[np.asarray(row["image"]).tobytes()]
        assert (GROUPS[row["group"]], PHASES[row["phase"]]) == (conditions["group"], conditions["phase"])
        assert LEVELS[row["slice_index"]] == conditions["level"]


def test_an_image_that_does_not_say_what_it_shows_is_made_again(pairs, paired_model, tmp_path):
    folder = generate_images(paired_model, tmp_path / "images", 5, **FEW_STEPS)
    with Image.open(folder / "000001.png") as picture:
        pixels = np.asarray(picture)
    Image.fromarray(pixels).save(folder / "000001.png")
    (folder / "000003.png").write_bytes(b"damaged")
    generate_images(paired_model, folder, 9, **FEW_STEPS)
    assert pictures(folder) == pictures(pairs)
    assert (folder / "manifest.jsonl").read_text() == (pairs / "manifest.jsonl").read_text()
