"""Types of click for files and folders: not checked, but completed by the shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from click.types import StringParamType
else:
    StringParamType = type(click.STRING)


class FileName(StringParamType):
    """Text that names a file (``kind="file"``) or a folder (``"dir"``)."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The shell is asked for names of this kind."""
        del ctx, param
        return [CompletionItem(incomplete, type=self._kind)]


FILE = FileName("file")
FOLDER = FileName("dir")
