import json
import resource
import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from parallel import in_two_processes, needs_a_fork
from PIL import Image
from tiny import TINY, build_tiny, pictures

from hcm_hf.generation import images as generation
from hcm_hf.generation.images import find_images, generate_images, image_generator
from hcm_hf.models import DCGANGenerator, GANGenerator
from hcm_hf.pipelines.auto import hash_model
from hcm_hf.pipelines.latent import LatentPipeline
from hcm_hf.pipelines.sampling import Sampling
from hcm_hf.utils.errors import InputError
from hcm_hf.version import __version__


def save_model(folder, seed):
    torch.manual_seed(seed)
    network = DCGANGenerator(16, **TINY["dcgan"]["generator"])
    for parameter in network.parameters():  # away from the grey images of an untrained network
        parameter.data *= 5
    LatentPipeline(network).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "one", seed=0)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture(scope="module")
def reference(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "reference"
    generate_images(model, folder, num_images=11, batch_size=4, save_npy=True, save_nifti=True)
    return folder


def test_manifest_says_where_each_image_comes_from(reference, model):
    lines = [json.loads(line) for line in (reference / "manifest.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == sorted(pictures(reference))
    expected = {"seed": 0, "class": None, "model": str(model), "model_hash": hash_model(model), "version": __version__}
    assert all(line == {"file": line["file"]} | expected for line in lines)


def test_files_hold_what_the_pipeline_makes(reference, model):
    image = LatentPipeline.from_pretrained(model)(1, generator=image_generator(0, 3), output_type="np").images[0]
    np.testing.assert_allclose(np.load(reference / "000003.npy"), image, atol=1e-6)
    with Image.open(reference / "000003.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_allclose(np.asarray(picture) / 255, image[:, :, 0], atol=0.5 / 255 + 1e-6)
    assert np.ptp(image) > 0.5
    stack = nibabel.load(reference / "images.nii.gz")
    assert stack.shape == (16, 16, 11) and stack.get_data_dtype() == np.uint8
    np.testing.assert_allclose(stack.header.get_zooms()[:2], (8.0, 8.0))
    assert nibabel.aff2axcodes(stack.affine) == ("L", "P", "S") and stack.header.get_xyzt_units()[0] == "mm"
    for affine, code in (stack.get_sform(coded=True), stack.get_qform(coded=True)):
        np.testing.assert_allclose(affine, np.diag([-8, -8, 1, 1]), atol=1e-6)
        assert code == 2
    for index in range(11):
        with Image.open(reference / f"{index:06d}.png") as picture:
            np.testing.assert_array_equal(np.asarray(stack.dataobj)[:, :, index].T, np.asarray(picture))


@pytest.fixture(scope="module")
def ddpm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "ddpm"
    build_tiny("ddpm").pipeline().save_pretrained(folder)
    return folder


def test_a_diffusion_model_denoises_as_told_and_says_so(ddpm, tmp_path):
    few = {"scheduler": "dpmsolver++", "num_inference_steps": 3}
    whole = pictures(generate_images(ddpm, tmp_path / "whole", num_images=5, batch_size=5, sampling=Sampling(**few)))
    parts = pictures(generate_images(ddpm, tmp_path / "parts", num_images=5, batch_size=2, sampling=Sampling(**few)))
    assert whole == parts
    line = json.loads((tmp_path / "whole" / "manifest.jsonl").read_text().splitlines()[0])
    assert (line["scheduler"], line["num_inference_steps"]) == ("dpmsolver++", 3)
    for change in ({"scheduler": "ddim"}, {"num_inference_steps": 4}):
        with pytest.raises(InputError, match="whole holds images with (scheduler|num_inference_steps)"):
            generate_images(ddpm, tmp_path / "whole", num_images=5, sampling=Sampling(**few | change))
    assert pictures(tmp_path / "whole") == whole


def test_a_class_goes_into_images_and_manifest(tmp_path):
    build_tiny("acgan").pipeline().save_pretrained(tmp_path / "model")
    folders = {label: tmp_path / str(label) for label in (None, "HCM", "NOR")}
    images = {
        label: pictures(generate_images(tmp_path / "model", folder, 2, sampling=Sampling(class_labels=label)))
        for label, folder in folders.items()
    }
    assert images[None] == images["HCM"] != images["NOR"]
    noted = [json.loads((folder / "manifest.jsonl").read_text().splitlines()[0]) for folder in folders.values()]
    assert [line["class"] for line in noted] == ["HCM", "HCM", "NOR"]
    generate_images(
        tmp_path / "model", folders[None], 3, sampling=Sampling({"group": "HCM"})
    )  # goes on: it is the default
    with pytest.raises(InputError, match="class_labels 'ABC': unknown 'ABC'; choose among group: DCM, HCM"):
        generate_images(tmp_path / "model", tmp_path / "abc", 2, sampling=Sampling(class_labels="ABC"))
    assert not (tmp_path / "abc").exists()


@pytest.mark.parametrize("batch_size", [1, 3, 11, 32])
def test_batch_size_does_not_change_the_images(reference, model, tmp_path, batch_size):
    generate_images(model, tmp_path / "images", num_images=11, batch_size=batch_size)
    assert pictures(tmp_path / "images") == pictures(reference)


@needs_a_fork
def test_two_processes_make_the_same_images(reference, model, tmp_path):
    in_two_processes(generate_images, model, tmp_path / "images", 11)
    assert pictures(tmp_path / "images") == pictures(reference)
    assert (tmp_path / "images/manifest.jsonl").read_text() == (reference / "manifest.jsonl").read_text()


def test_a_rerun_makes_what_is_missing_and_nothing_else(reference, model, tmp_path):
    folder = generate_images(model, tmp_path / "images", num_images=5)
    (folder / "000002.png").unlink()
    kept = (folder / "000004.png").stat().st_mtime_ns
    generate_images(model, folder, num_images=11)
    assert pictures(folder) == pictures(reference)
    assert (folder / "000004.png").stat().st_mtime_ns == kept
    assert len((folder / "manifest.jsonl").read_text().splitlines()) == 11


def test_an_interrupted_run_continues(reference, model, tmp_path, monkeypatch):
    write, count = generation.write_bytes, iter(range(100))

    def interrupted(path, data, lasting):
        if next(count) == 6:
            raise KeyboardInterrupt
        write(path, data, lasting)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(generation, "write_bytes", interrupted)
        generate_images(model, tmp_path / "images", num_images=11, batch_size=4)
    assert len(pictures(tmp_path / "images")) == 6 and not (tmp_path / "images/manifest.jsonl").exists()
    generate_images(model, tmp_path / "images", num_images=11)
    assert pictures(tmp_path / "images") == pictures(reference)
    generate_images(model, tmp_path / "images", num_images=11, save_nifti=True)
    assert (tmp_path / "images" / "images.nii.gz").read_bytes() == (reference / "images.nii.gz").read_bytes()


@pytest.mark.parametrize(
    "data", [b"", b"[1]", b"\xff", b'{"model_hash": ', b'{"groups": 7}', b'{"train_patients": {"a": 1}}']
)
def test_damaged_settings_of_a_folder_are_named_and_it_stays(data, reference, model, tmp_path):
    folder = shutil.copytree(reference, tmp_path / "images")
    (folder / "generation.json").write_bytes(data)
    with pytest.raises(InputError, match="generation.json"):
        generate_images(model, folder, num_images=12)
    assert pictures(folder) == pictures(reference)


@pytest.mark.parametrize("left", [lambda data: b"", lambda data: data[:60], lambda data: bytes(len(data))])
@pytest.mark.parametrize("name", ["000003.png", "000003.npy"])
def test_what_a_power_cut_left_is_made_again(name, left, reference, model, tmp_path):
    """Images are not waited for one by one, so a power cut in the middle leaves empty or half-written ones."""
    folder = shutil.copytree(reference, tmp_path / "images")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(left(whole))
    generate_images(model, folder, num_images=11, save_npy=True)
    assert (folder / name).read_bytes() == whole


def test_a_seed_of_many_digits_goes_on(model, tmp_path):
    for number in (2, 3):
        generate_images(model, tmp_path / "images", num_images=number, seed=20240101123456789)
    assert len(find_images(tmp_path / "images")) == 3


def test_another_seed_makes_other_images(reference, model, tmp_path):
    folder = generate_images(model, tmp_path / "images", num_images=3, seed=1)
    assert not set(pictures(folder).values()) & set(pictures(reference).values())
    assert len(set(pictures(reference).values())) == 11


def test_two_models_never_share_a_folder(reference, model, other_model, tmp_path):
    before = pictures(reference)
    assert hash_model(model) != hash_model(other_model)
    for arguments, message in [
        ({"model": other_model}, "holds images with model_hash"),
        ({"model": model, "seed": 1}, "holds images with seed 0, not 1"),
    ]:
        with pytest.raises(InputError, match=message):
            generate_images(output_dir=reference, num_images=20, **arguments)
    assert pictures(reference) == before
    (tmp_path / "note").write_text("")
    with pytest.raises(InputError, match="holds something else"):
        generate_images(model, tmp_path)


def test_bad_arguments_write_nothing(model, tmp_path):
    for arguments, message in [
        ({"num_images": 0}, "num_images is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"num_images": 40_000, "save_nifti": True}, "save_nifti takes 32767 images at most"),
        ({"sampling": Sampling(class_labels="HCM")}, "class_labels HCM given, but this model has no classes"),
        ({"sampling": Sampling(guidance_scale=2.0)}, "guidance_scale 2.0 given, but this model is no diffusion model"),
        ({"save_dataset": True}, "save_dataset needs a model that makes masks"),
        ({"model": tmp_path / "nowhere"}, "nowhere does not exist"),
    ]:
        with pytest.raises(InputError, match=message):
            generate_images(**{"model": model, "output_dir": tmp_path / "images"} | arguments)
        assert not list(tmp_path.iterdir())


def test_full_disk_is_one_sentence_and_leaves_whole_images(model, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        with pytest.raises(InputError, match=r"Cannot write .*000000.npy"):
            generate_images(model, tmp_path / "images", num_images=3, save_npy=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["000000.png", "generation.json"]


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    torch.manual_seed(0)
    LatentPipeline(GANGenerator(128, **TINY["gan"]["generator"])).save_pretrained(tmp_path / "model")
    code = (
        "import torch; torch.set_num_threads(1); from hcm_hf import generate_images\n"
        "from hcm_hf.utils.process import peak_memory as peak\n"
        f"model, folder = {str(tmp_path / 'model')!r}, {str(tmp_path)!r}\n"
        "generate_images(model, folder + '/few', 32, save_nifti=True); few = peak()\n"
        "generate_images(model, folder + '/many', 512, save_nifti=True); print(peak() - few)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 480 * 128 * 128 / 2  # half of what the images take as bytes
