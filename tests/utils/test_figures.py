import os
import subprocess
import sys

import pytest


NOTEBOOKS = "module://matplotlib_inline.backend_inline"


@pytest.mark.parametrize(
    ("backend", "left"), [(NOTEBOOKS, ("agg", "inline", NOTEBOOKS)), ("none", ("agg",)), ("svg", ("svg",))]
)
def test_figures_need_no_backend_and_leave_the_one_that_is_named(backend, left, tmp_path):
    """A notebook hands the name of its own to the commands that it runs, whether they have it or not."""
    code = f"""
import numpy as np
from hcm_hf.utils.figures import new_figure
from hcm_hf.evaluation.figures import write_spectra
new_figure(3, 2).savefig({str(tmp_path / "figure.png")!r})
write_spectra({{"real": np.ones((2, 9))}}, 2.0, {str(tmp_path / "spectra.png")!r})
import matplotlib
print(matplotlib.get_backend())
"""
    environment = os.environ | {"MPLBACKEND": backend}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] in left and len(list(tmp_path.iterdir())) == 2
