"""``skymatch export``: the skies for another program."""

from __future__ import annotations

from typing import Any

import click

from skymatch_cli.choices import ExportFormat

from . import console, options, sections

_NEXT = {
    ExportFormat.SWARP: "use it as: SWarp INPUTS -BACK_TYPE MANUAL -BACK_DEFAULT @{file}   (inputs in its order)",
    ExportFormat.MONTAGE: "use it as: mBgExec -p projected IMAGES.TBL {file} corrected",
    ExportFormat.JWST: "use it as: strun skymatch ASN.json --skymethod=user --skylist={file}",
    ExportFormat.DRIZZLE: "use it as: AstroDrizzle(..., skysub=True, skyfile='{file}')",
    ExportFormat.REGIONS: "use it as: ds9 IMAGE -regions {file}",
    ExportFormat.TOPCAT: "use it as: topcat {file}",
}


@sections.command(
    "export",
    "skymatch match --dry-run -o solution.fits *.fits",
    "skymatch export solution.fits --to swarp -o back.txt",
    "SWarp *.fits -BACK_TYPE MANUAL -BACK_DEFAULT @back.txt",
    "skymatch export solution.fits --to montage --images-tbl pimages.tbl -o c.tbl",
)
@options.STORED
@options.add(options.EXPORT_TO, options.IMAGES_TBL, options.EXPORT_OUTPUT, options.OVERWRITE_FILES, *options.CONSOLE)
@sections.logged
def command(
    _ctx: click.Context,
    /,
    *,
    result: str,
    to: str,
    images_tbl: str | None,
    output: str | None,
    overwrite: bool,
    **_: Any,
) -> None:
    """Write the skies of a stored result for another program.

    RESULT is a .fits or .json file that 'skymatch match -o' wrote. The headers of the images are read again, except for
    topcat; run in the folder where the result was made.
    """
    from skymatch_cli.errors import UsageError
    from skymatch_cli.export.programs import Export, exported
    from skymatch_cli.output.destination import check_target, save_target
    from skymatch_cli.output.stored import read_images, read_report
    from skymatch_cli.record.files import files_of_images

    if images_tbl is not None and to != ExportFormat.MONTAGE:
        raise UsageError("--images-tbl is for --to montage", "leave it out")
    file = None if output == "-" else output
    inputs = (result, images_tbl or result)
    check_target(file, "--output", overwrite=overwrite, inputs=inputs)
    report = read_report(result)
    infos = () if to == ExportFormat.TOPCAT else read_images(report)
    check_target(file, "--output", overwrite=overwrite, inputs=(*inputs, *files_of_images(infos)))
    content = exported(to, Export(report=report, infos=infos, images_tbl=images_tbl))
    if file is None:
        click.echo(content, nl=False)
    else:
        save_target(file, "--output", lambda stream: stream.write(content))
        console.say(_NEXT[ExportFormat(to)].format(file=file))
