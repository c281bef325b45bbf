"""``python -m skymatch_cli`` is ``skymatch``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="skymatch")
