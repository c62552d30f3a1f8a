"""`python -m hcm_hf NAME` is the command `hcm-hf NAME`."""

from hcm_hf.cli import main


if __name__ == "__main__":
    main()
