"""``python -m skymatch_cli`` is ``skymatch``."""

from skymatch_cli.cli import program

if __name__ == "__main__":
    program()
