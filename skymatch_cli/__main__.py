"""``python -m skymatch_cli`` is ``skymatch``."""

from skymatch_cli.cli import main

if __name__ == "__main__":
    main(prog_name="skymatch")
