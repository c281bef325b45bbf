"""The directive ``skymatch-modules``: what every module is for, by the first line of its docstring."""

import ast
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import skymatch_cli

ROOT = Path(skymatch_cli.__file__).parent
ROOMS = (  # in the order of ARCHITECTURE.md: each imports from those before it
    *("", "model", "sky", "images", "statistics", "compare", "solve", "record"),
    *("output", "store", "report", "export", "run", "cli"),
)


def packages():
    """Return the folders of modules, each with (name, first line of the docstring) of its modules."""
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        first = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        folder = file.parent.relative_to(ROOT.parent).as_posix()
        found.setdefault(folder, []).append((file.stem, first))
    return dict(sorted(found.items(), key=lambda item: (place(item[0]), item[0])))


def place(folder):
    """Return where a folder stands: in the order of the rooms, new ones last."""
    room = (*folder.split("/")[1:2], "")[0]
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)


class Modules(SphinxDirective):
    """A list for each package."""

    def run(self):
        """The lists."""
        made = []
        for folder, modules in packages().items():
            items = []
            for name, first in modules:
                term = nodes.term("", "", nodes.literal("", name))
                text = nodes.definition("", nodes.paragraph("", first))
                items.append(nodes.definition_list_item("", term, text))
            made += [nodes.rubric("", "", nodes.literal("", f"{folder}/")), nodes.definition_list("", *items)]
        return made


def setup(app):
    """Register with Sphinx."""
    app.add_directive("skymatch-modules", Modules)
    return {"parallel_read_safe": True}
