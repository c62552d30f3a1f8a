"""Draw quality against time of models that have been scored, real patients beside them, as one figure.

python scripts/draw_tradeoff.py --reports paper docs/results/acdc-64-paper --sweeps ddpm-tuned tuned/steps.json \
    ddpm-distilled distilled/steps.json --output_file tradeoff.png
"""

from pathlib import Path

from hcm_hf.cli import run
from hcm_hf.study.tradeoff import draw_tradeoff


def main(
    output_file: Path, reports: tuple[tuple[str, Path], ...] = (), sweeps: tuple[tuple[str, Path], ...] = ()
) -> None:
    """Draw quality against time of models that have been scored, real patients beside them, as one figure.

    Args:
        output_file: the PNG file to write; the table beside it has its name and ends in .md.
        reports: pairs of a recipe and a report.json of score.py, in a folder that is named after its family, or a
            folder that holds such folders.
        sweeps: pairs of a model, as ddpm-tuned, and a steps.json of sweep_steps.py.
    """
    entries = draw_tradeoff(output_file, reports, sweeps)
    print(f"figure: {output_file} ({len(entries)} settings)\ntable: {output_file.with_suffix('.md')}")


if __name__ == "__main__":
    run(main)
