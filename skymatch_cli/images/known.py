"""Headers read in an earlier run, used again where files and settings are unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from skymatch_cli.errors import InputError
from skymatch_cli.images.alike import AUTO, FILE, Channels
from skymatch_cli.images.formats import asdffile
from skymatch_cli.images.formats.files import file_state
from skymatch_cli.images.formats.fitsfile import FitsFile
from skymatch_cli.images.units import UnitFacts
from skymatch_cli.model import FileState, ImageInfo, ImageRef, SkyWarning
from skymatch_cli.settings import OF_HEADERS, Settings
from skymatch_cli.sky.footprint import Footprint
from skymatch_cli.version import __version__


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Values read from the header of one image."""

    info: ImageInfo  # without the comparison unit, which depends on the other images
    facts: UnitFacts
    filters: Mapping[str, str]
    zero_points: Mapping[str, float]  # none where fluxes are scaled (``--flux-scale``)
    warnings: tuple[SkyWarning, ...] = ()
    # the error if it can't be traced; None where the method needs no WCS
    footprint: Footprint | InputError | None = None
    of_file: bool = True  # whether its group is named after its file
    observer: tuple[float, ...] = ()  # (longitude, latitude, distance) of a helioprojective image, see `observer_of`
    unused: str = ""  # why flags or weights of the list, which are its own by their names, are not used
    channels: Channels | None = None  # where the planes of a cube lie


@dataclass(frozen=True, slots=True)
class Headers:
    """The headers of a run: structures of files by their real paths, images, and the rules they were read by."""

    rules: str = ""
    files: Mapping[str, FitsFile] = field(default_factory=dict)
    images: tuple[ImageHeader, ...] = ()


class Known:
    """Headers of an earlier run that are still valid."""

    def __init__(self, old: Headers | None, settings: Settings, *, need_wcs: bool) -> None:
        old = old or Headers()
        chosen = {name: getattr(settings, name) for name in sorted(OF_HEADERS - {"mask", "planes"})}
        rules = {**chosen, "need_wcs": need_wcs, "gwcs": not asdffile.missing_package(), "version": __version__}
        self.rules = json.dumps(rules)  # everything that headers are read by, except the files
        self._files = old.files
        self._real_of = {file.path: real for real, file in old.files.items()}
        same = old.rules == self.rules
        self._images = {image.info.ref: image for image in old.images if same}
        self._by_file = settings.group_by in {AUTO, FILE}
        self._state: dict[str, FileState | None] = {}

    def has(self, header: ImageHeader) -> bool:
        """Tell whether a header is one of the earlier run."""
        return self._images.get(header.info.ref) is header

    def file(self, path: str, real: str) -> FitsFile | None:
        """Return the structure of a file, by its real path, if the file is unchanged."""
        found = self._files.get(real)
        if found is None or self._state_of(path) != found.state:
            return None
        return found if found.path == path else replace(found, path=path)

    def images(self, refs: Sequence[ImageRef], file: FitsFile, real: str, spelling: str) -> list[ImageHeader] | None:
        """Return the images of a file; None if one is unknown, or a file of its planes, a link or a name changed."""
        if self._real_of.get(file.path) != real:
            return None
        images = [self._images.get(ref) for ref in refs]
        known = [image for image in images if image is not None and self._holds(image, file, spelling)]
        return known if len(known) == len(images) else None

    def _holds(self, image: ImageHeader, file: FitsFile, spelling: str) -> bool:
        source = image.info.source
        if self._by_file and image.of_file and image.info.group != spelling:
            return False
        if source.science.state != file.state:
            return False
        used = {plane.path: plane.state for plane in source.planes.values() if plane.path != file.path}
        if source.regions is not None:
            used[source.regions.path] = source.regions.state
        return all(self._state_of(path) == state for path, state in used.items())

    def _state_of(self, path: str) -> FileState | None:
        """State of a file; None where it is gone."""
        if path not in self._state:
            try:
                self._state[path] = file_state(path)
            except OSError:
                self._state[path] = None
        return self._state[path]
