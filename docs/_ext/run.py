"""The directive ``run``: run commands while the page is built, and show what a terminal of 80 columns shows.

The commands of a page run in one folder, ``_generated/NAME-OF-THE-PAGE``, which is empty when the page begins. A
command that ends with another exit code than ``:exit:`` says is a warning of the build. So what a page shows is what
the program does, and its pictures are those that its own commands make.
"""

import shutil
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger
from terminal import on_terminal

LOG = getLogger(__name__)


def folder_of(app, docname):
    """Where the commands of a page run."""
    return Path(app.srcdir) / "_generated" / docname.replace("/", "-")


class Run(SphinxDirective):
    """One block of commands; lines that end with a backslash go on in the next one."""

    has_content = True
    option_spec: ClassVar = {
        "exit": directives.nonnegative_int,
        "silent": directives.flag,
        "head": directives.positive_int,
    }

    def run(self):
        """Run the commands; the literal block that shows them."""
        shown = []
        for command in "\n".join(self.content).replace("\\\n", "\0").splitlines():
            text = command.replace("\0", "\\\n")
            shown.append(f"$ {text}")
            output = self.output_of(text)
            if "silent" not in self.options:
                shown += self.cut(output)
        block = nodes.literal_block("", "\n".join(shown), language="console")
        self.set_source_info(block)
        return [block]

    def output_of(self, command):
        """Run a command and return what is on the screen in the end."""
        text, exit_code = on_terminal(command, folder_of(self.env.app, self.env.docname))
        if exit_code != self.options.get("exit", 0):
            LOG.warning("%r ended with %d: %s", command, exit_code, text, location=self.get_location())
        return text

    def cut(self, output):
        """The lines that are shown."""
        lines = output.rstrip().splitlines()
        head = self.options.get("head", len(lines))
        return lines[:head] + (["…"] if len(lines) > head else [])


def empty_folder(app, docname, source):
    """Begin a page that runs commands with nothing."""
    folder = folder_of(app, docname)
    if any("{run}" in text for text in source):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)


def setup(app):
    """Register with Sphinx."""
    app.add_directive("run", Run)
    app.connect("source-read", empty_folder)
    return {"parallel_read_safe": True}
