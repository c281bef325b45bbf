"""Run a command on a terminal of 80 columns and return what is on the screen."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pyte

COLUMNS, LINES = 80, 400


def on_terminal(command, folder):
    """Run a command of the shell as a person would.

    Parameters
    ----------
    command : str
    folder : path
        Where it runs.

    Returns
    -------
    text : str
        What is on the screen in the end: progress has been overwritten.
    exit_code : int

    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "NO_COLOR"}}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TERM": "xterm"}
    environment |= {"MPLBACKEND": "agg"}
    program = subprocess.Popen(
        ["sh", "-c", command], cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    try:
        while part := os.read(ours, 4096):
            stream.feed(part)
    except OSError:  # the program has ended
        pass
    os.close(ours)
    return "\n".join(line.rstrip() for line in screen.display).rstrip(), program.wait()
