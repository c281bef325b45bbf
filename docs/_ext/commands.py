"""The directives ``skymatch-commands``, ``-synopsis`` and ``-settings``: the reference, from the code."""

from dataclasses import fields

import commandtext
from sphinx.util.docutils import SphinxDirective

from skymatch_cli.output.destination import Output
from skymatch_cli.settings import Settings


class Commands(SphinxDirective):
    """Every command with all its options."""

    def run(self):
        """The sections."""
        return self.parse_text_to_nodes(commandtext.reference(), allow_section_headings=True)


class Synopsis(SphinxDirective):
    """The commands, a line each."""

    def run(self):
        """The list."""
        return self.parse_text_to_nodes(commandtext.synopsis())


class SettingsTable(SphinxDirective):
    """Every setting with its type and default."""

    def run(self):
        """The table."""
        lines = [".. list-table::", "   :header-rows: 1", "", "   * - key", "     - type", "     - default"]
        for field in (*fields(Settings), *fields(Output)):
            kind = str(field.type).removesuffix(" | None")
            default = (
                "none"
                if field.default is None
                else f"``{str(field.default).lower() if kind == 'bool' else field.default}``"
            )
            option = "--" + field.name.replace("_", "-")
            lines += [f"   * - :option:`{option[2:]} <skymatch match {option}>`", f"     - {kind}", f"     - {default}"]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app):
    """Register with Sphinx."""
    app.add_directive("skymatch-commands", Commands)
    app.add_directive("skymatch-synopsis", Synopsis)
    app.add_directive("skymatch-settings", SettingsTable)
    return {"parallel_read_safe": True}
