import json

import pytest
from tiny import build_tiny

from hcm_hf.study.sweep import sweep_steps
from hcm_hf.utils.errors import InputError


pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture
def model(tmp_path):
    build_tiny("ddpm").pipeline().save_pretrained(tmp_path / "ddpm")
    return tmp_path / "ddpm"


def test_every_setting_is_scored_once_and_stands_in_one_table(model, dataset_dir, tmp_path):
    output_dir = tmp_path / "steps"
    sweep_steps(model, output_dir, dataset_dir, schedulers=("ddpm", "unipc"), steps=(1,), num_images=6)
    record = json.loads((output_dir / "steps.json").read_text())
    assert list(record) == ["ddpm-1", "unipc-1", "**real patients**"]
    for name in list(record)[:-1]:
        report = json.loads((output_dir / name / "HCM-0" / "report.json").read_text())
        assert report["n_generated"] == 6 and report["generator"]["scheduler"] == name.partition("-")[0]
        assert record[name]["numbers"][0]["copy_rate"] == report["rows"]["generated"]["copy_rate"]
        assert record[name]["speed"]["network_calls"] == int(name[-1])
        assert record[name]["speed"]["seconds_per_1000_images"] > 0
    assert (output_dir / "steps.md").read_text().count("\n| ") == 2 + 3
    files = [path for path in output_dir.rglob("*") if path.name in ("report.json", "000000.png")]
    before = {path: path.stat().st_mtime_ns for path in files}
    sweep_steps(model, output_dir, dataset_dir, schedulers=("unipc", "ddpm"), steps=(1, 3), num_images=6)
    assert {path: path.stat().st_mtime_ns for path in files} == before
    record = json.loads((output_dir / "steps.json").read_text())
    assert list(record) == ["unipc-1", "unipc-3", "ddpm-1", "ddpm-3", "**real patients**"]
    assert [record[name]["speed"]["network_calls"] for name in list(record)[:-1]] == [1, 3, 1, 3]


def test_several_seeds_and_groups_of_a_model_of_pairs(dataset_dir, tmp_path):
    build_tiny("ddpm", recipe="tuned").pipeline().save_pretrained(tmp_path / "tuned")
    settings = {"schedulers": ("sde-dpmsolver++",), "steps": (2,), "num_images": 6, "split": "validation"}
    output_dir = sweep_steps(
        tmp_path / "tuned", tmp_path / "steps", dataset_dir, seeds=(0, 1), groups=("HCM", "NOR"), **settings
    )
    record = json.loads((output_dir / "steps.json").read_text())["sde-dpmsolver++-2"]
    assert record["seeds"] == [0, 1] and len(record["numbers"]) == 2
    for seed, row in enumerate(record["numbers"]):
        for group in ("HCM", "NOR"):
            folder = output_dir / "sde-dpmsolver++-2" / f"{group}-{seed}"
            report = json.loads((folder / "report.json").read_text())
            assert report["dataset"]["split"] == "validation" and report["generator"]["classes"] == [group]
            share = f"mask_thick_share_{group.lower()}_ed"
            assert row[share] == report["rows"]["generated"][share]
    table = (output_dir / "steps.md").read_text()
    rates = [row["copy_rate"]["value"] for row in record["numbers"]]
    assert f"{sum(rates) / 2:.3f} [{min(rates):.3f}, {max(rates):.3f}]" in table
    assert "split validation with" in table


def test_one_group_is_asked_for_too(dataset_dir, tmp_path):
    build_tiny("ddpm", recipe="tuned").pipeline().save_pretrained(tmp_path / "tuned")
    settings = {"schedulers": ("ddpm",), "steps": (2,), "num_images": 4, "groups": ("NOR",)}
    output_dir = sweep_steps(tmp_path / "tuned", tmp_path / "steps", dataset_dir, **settings)
    lines = (output_dir / "ddpm-2" / "NOR-0" / "images" / "manifest.jsonl").read_text().splitlines()
    assert {json.loads(line)["group"] for line in lines} == {"NOR"}


def test_a_model_that_is_asked_for_nothing_has_one_group(model, dataset_dir, tmp_path):
    with pytest.raises(InputError, match="groups HCM NOR: this model makes no masks"):
        sweep_steps(model, tmp_path / "steps", dataset_dir, groups=("HCM", "NOR"))


def test_only_a_diffusion_model_takes_steps(dataset_dir, tmp_path):
    build_tiny("vae").pipeline().save_pretrained(tmp_path / "vae")
    with pytest.raises(InputError, match="schedulers and steps are for diffusion models"):
        sweep_steps(tmp_path / "vae", tmp_path / "steps", dataset_dir, steps=(1,))
    assert not (tmp_path / "steps").exists()


def test_a_model_that_is_called_once_has_a_row_of_its_seeds(dataset_dir, tmp_path):
    build_tiny("acgan").pipeline().save_pretrained(tmp_path / "acgan")
    settings = {"num_images": 6, "seeds": (0, 1), "groups": ("NOR",), "split": "validation"}
    output_dir = sweep_steps(tmp_path / "acgan", tmp_path / "steps", dataset_dir, **settings)
    record = json.loads((output_dir / "steps.json").read_text())["once"]
    assert record["speed"]["network_calls"] == 1
    table = (output_dir / "steps.md").read_text()
    assert table.startswith("# Quality and time\n") and "solver" not in table
    for seed, row in enumerate(record["numbers"]):
        report = json.loads((output_dir / "once" / f"NOR-{seed}" / "report.json").read_text())
        assert (
            report["generator"]["classes"] == ["NOR"] and row["copy_rate"] == report["rows"]["generated"]["copy_rate"]
        )


def test_unknown_settings_are_refused_before_the_first_image(model, dataset_dir, tmp_path):
    for settings, message in (
        ({"steps": (1, 0)}, "num_inference_steps"),
        ({"schedulers": ()}, "schedulers, steps, seeds and groups must each"),
    ):
        with pytest.raises(InputError, match=message):
            sweep_steps(model, tmp_path / "steps", dataset_dir, **settings)
        assert not (tmp_path / "steps").exists()
