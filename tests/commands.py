"""Commands as a user types them, in this process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from skymatch_cli.cli import main


def run(*words: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], input=stdin)


def skymatch(*words: object, code: int = 0) -> Result:
    """Run a command that has to end with an exit code."""
    done = run(*words)
    assert done.exit_code == code, done.output
    return done
