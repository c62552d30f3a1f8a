import json

import numpy as np
import pytest
from PIL import Image

from hcm_hf.training.curves import loss_curves, plot_losses
from hcm_hf.utils.errors import InputError


TRAINING = [{"step": s, "epoch": -(-s // 4), "a_loss": 1 / s, "b_loss": 2 / s} for s in range(1, 13)]
VALIDATION = [{"step": s, "epoch": s // 4, "validation_loss": 1 + abs(s - 8)} for s in (4, 8, 12)]


def test_losses_are_in_one_plot_and_the_best_epoch_is_marked():
    above, below = plot_losses(TRAINING, VALIDATION).axes
    assert [text.get_text() for text in above.get_legend().get_texts()] == ["a", "b"]
    means = [line for line in above.lines if not line.get_label().startswith("_")]
    np.testing.assert_allclose(means[0].get_ydata(), [np.mean([1 / s for s in range(e, e + 4)]) for e in (1, 5, 9)])
    curve, marker = below.lines
    assert curve.get_xydata().tolist() == [[1, 5], [2, 1], [3, 5]]
    assert marker.get_xydata().tolist() == [[2, 1]] and marker.get_label() == "best: 1 at epoch 2"


def test_loss_curves_are_written_with_and_without_a_validation(tmp_path):
    for records in (TRAINING, TRAINING + VALIDATION):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        loss_curves(tmp_path / "metrics.jsonl", tmp_path / "losses.png")
        with Image.open(tmp_path / "losses.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20


def test_no_losses_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="metrics.jsonl holds no training loss"):
        loss_curves(tmp_path / "metrics.jsonl", tmp_path / "losses.png")
    assert not (tmp_path / "losses.png").exists()


@pytest.mark.parametrize(
    "line",
    [
        *('{"epoch": 1, "a_loss": 1.0}', '{"step": 1.5, "epoch": 1, "a_loss": 1.0}', '{"step": 0, "epoch": 0}'),
        *('{"step": 1, "epoch": 1, "a_loss": "low"}', '{"step": 1, "epoch": 1, "a_loss": NaN}', "[1]", "nonsense"),
        '{"step": 1, "epoch": 1, "a_loss": 1%s}' % ("0" * 400),
    ],
)
def test_a_damaged_record_is_named_by_its_line(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(TRAINING[0]) + "\n" + line + "\n")
    with pytest.raises(InputError, match=r"metrics.jsonl, line 2,.* damaged"):
        loss_curves(path, tmp_path / "losses.png")
    assert not (tmp_path / "losses.png").exists()


def test_a_run_that_a_later_version_went_on_with_is_drawn(tmp_path):
    """It may log more than the version before."""
    later = [record | {"c_loss": 1.0, "wall_error": 2.0} for record in (*TRAINING[8:], *VALIDATION[2:])]
    records = [*TRAINING[:8], *VALIDATION[:2], *later]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    loss_curves(tmp_path / "metrics.jsonl", tmp_path / "losses.png")
    assert (tmp_path / "losses.png").is_file()
