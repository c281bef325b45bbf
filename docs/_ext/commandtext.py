"""The commands of the program as reStructuredText, from what click knows about them."""

import inspect
import re

import click

from skymatch_cli.cli import COMMANDS, main


def reference():
    """The reference of all commands, each a section."""
    context = click.Context(main, info_name="skymatch", **main.context_settings)
    parts = [command_text(main.get_command(context, name), context) for name in COMMANDS]
    return "\n".join(parts)


def synopsis():
    """What every command is for, in a line."""
    context = click.Context(main, info_name="skymatch", **main.context_settings)
    lines = [
        "::",
        "",
        "    skymatch COMMAND [OPTIONS] [ARGUMENTS]",
        "    skymatch --help",
        "    skymatch --version",
        "",
    ]
    for name in COMMANDS:
        first = inspect.cleandoc(main.get_command(context, name).help or "").partition("\n\n")[0]
        lines += [f":ref:`skymatch {name} <command-{name}>`", f"   {escaped(' '.join(first.split()))}", ""]
    return "\n".join(lines)


def command_text(command, parent):
    """One command: what it does, its arguments, its options by heading, examples."""
    context = click.Context(command, info_name=command.name, parent=parent)
    title = f"skymatch {command.name}"
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f".. _command-{command.name}:", "", title, "-" * len(title), "", f".. program:: {title}", ""]
    lines += [
        "::",
        "",
        f"    {title} {usage}",
        "",
        escaped(inspect.cleandoc(command.help or "").replace("\b\n", "")),
        "",
    ]
    sections = {}
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option):
            sections.setdefault(getattr(parameter, "section", "General"), []).append(parameter)
    for heading in [name for name in sections if name != "General"] + ["General"]:
        lines += [f"**{heading}**", ""]
        for option in sections.get(heading, ()):
            lines += option_text(option, context)
    return "\n".join(lines + epilog_text(command))


def option_text(option, context):
    """One option: how it is spelt, what it does, its words and its default."""
    _, text = option.get_help_record(context)
    text, _, extra = text.partition("  [")
    names = ", ".join(f"{name}{value_of(option, context)}" for name in sorted(option.opts, key=len))
    words = ""
    if isinstance(option.type, click.Choice) and option.metavar is None:
        words = f" One of {', '.join(f'``{word}``' for word in option.type.choices)}."
    default = f" ({extra.rstrip(']')})" if extra else ""
    return [f".. option:: {names}", "", f"   {escaped(text)}{words}{escaped(default)}", ""]


def value_of(option, context):
    """How the value of an option is named in its heading."""
    if option.is_flag or option.count:
        return ""
    name = option.metavar or ("WORD" if isinstance(option.type, click.Choice) else option.make_metavar(context))
    return f" <{name.strip('[]')}>"


def epilog_text(command):
    """Examples and exit codes: blocks that click doesn't rewrap stay as they are."""
    lines = []
    for block in (command.epilog or "").strip().split("\n\n"):
        kept, _, text = block.rpartition("\b\n")
        if kept or block.startswith("\b"):
            title, _, body = text.partition("\n")
            lines += [f"{escaped(title.rstrip(':'))}::", "", *(f"    {line.strip()}" for line in body.splitlines()), ""]
        elif text:
            lines += [escaped(" ".join(text.split())), ""]
    return lines


def escaped(text):
    """Text in which nothing is markup, but options, which stand in the letters of the shell."""
    for character in "\\*`|_":
        text = text.replace(character, f"\\{character}")
    return re.sub(r"(?<![\w-])--[a-z][a-z-]*[a-z]", r"``\g<0>``", text)
