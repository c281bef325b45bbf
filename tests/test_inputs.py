"""What the user names -> images: HDU syntax, globs, lists, masks, and every kind of file that is none."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from skymatch_cli.errors import UsageError
from skymatch_cli.images.formats.files import real_path, real_paths
from skymatch_cli.images.inputs import Inputs, resolve_images
from skymatch_cli.record.files import lists_among
from skymatch_cli.settings import Settings

SHARED = Path(__file__).parents[2] / "shared"
WCS_CARDS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 5.0, "CDELT1": -1e-4, "CDELT2": 1e-4}


def header(**more: Any) -> fits.Header:
    return fits.Header({**WCS_CARDS, **more})


def image(
    name: str = "", ver: int | None = None, *, shape: tuple[int, ...] = (4, 5), wcs: bool = True, ra: float = 10.0
) -> fits.ImageHDU:
    return fits.ImageHDU(np.zeros(shape, "f4"), header(CRVAL1=ra) if wcs else None, name=name or None, ver=ver)


def write(path: Path, *hdus: Any) -> str:
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return str(path)


def plain(path: Path, shape: tuple[int, ...] = (4, 5)) -> str:
    fits.PrimaryHDU(np.zeros(shape, "f4"), header()).writeto(path)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def resolve(*names: str, stdin: str | None = None, **settings: Any) -> Inputs:
    return resolve_images(names, settings=Settings(**settings), stdin=None if stdin is None else io.StringIO(stdin))


def labels(*names: str, **more: Any) -> list[str]:
    found = resolve(*names, **more)
    assert found.problems == ()
    return [ref.label for ref in found.refs]


def problem(*names: str, **more: Any) -> str:
    (only,) = resolve(*names, **more).problems
    return str(only)


@pytest.fixture
def hst(folder: Path) -> str:
    """Two chips with errors and flags, as HST writes them."""
    chips = [image(name, ver) for ver in (1, 2) for name in ("SCI", "ERR", "DQ")]
    write(folder / "a.fits", *chips)
    return "a.fits"


class TestWhichHdus:
    def test_plain_image(self, folder: Path) -> None:
        plain(folder / "p.fits")
        assert labels("p.fits") == ["p.fits"]

    def test_default_is_every_sci(self, hst: str) -> None:
        assert labels(hst) == ["a.fits[SCI,1]", "a.fits[SCI,2]"]

    def test_what_is_left_out_is_said(self, hst: str) -> None:
        assert resolve(hst).skipped == ("a.fits: not taken for images: [ERR,1], [DQ,1], [ERR,2], [DQ,2]",)

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("SCI", ["a.fits[SCI,1]", "a.fits[SCI,2]"]),
            ("sci,2", ["a.fits[SCI,2]"]),
            ("4", ["a.fits[SCI,2]"]),
            ("ERR,1", ["a.fits[ERR,1]"]),
            ("*", [f"a.fits[{n},{v}]" for v in (1, 2) for n in ("SCI", "ERR", "DQ")]),
        ],
    )
    def test_selectors(self, hst: str, selector: str, expected: list[str]) -> None:
        assert labels(f"a.fits[{selector}]") == expected

    def test_primary_by_name_and_number(self, folder: Path) -> None:
        plain(folder / "p.fits")
        assert labels("p.fits[0]") == labels("p.fits[PRIMARY]") == ["p.fits"]

    @pytest.mark.parametrize("selector", ["9", "WHT", "SCI,3"])
    def test_no_such_extension(self, hst: str, selector: str) -> None:
        assert problem(f"a.fits[{selector}]").startswith(f"a.fits[{selector}]: there is no such image extension")

    @pytest.mark.parametrize("selector", ["", "SCI,x", ",2"])
    def test_unparsable_selector(self, hst: str, selector: str) -> None:
        assert "names no extension" in problem(f"a.fits[{selector}]")

    def test_without_sci_every_celestial_image_that_is_no_mask(self, folder: Path) -> None:
        names = ["S29", "N31", "bpmask", "WHT", "IVAR", "ERR", "DQ", "MOVAR", "CONTRAST"]
        planes = [image(name, ra=10.0 + k) for k, name in enumerate(names)]
        write(folder / "d.fits", *planes, image("AREA", wcs=False))
        assert labels("d.fits") == ["d.fits[S29,1]", "d.fits[N31,1]", "d.fits[MOVAR,1]", "d.fits[CONTRAST,1]"]

    def test_nameless_extensions_by_number(self, folder: Path) -> None:
        write(folder / "d.fits", image(), image(ra=11.0))
        assert labels("d.fits") == ["d.fits[1]", "d.fits[2]"]

    def test_user_method_needs_no_wcs(self, folder: Path) -> None:
        write(folder / "d.fits", image("CCD1", wcs=False))
        assert labels("d.fits", method="user", skylist="skies.txt") == ["d.fits[CCD1,1]"]
        assert "celestial WCS" in problem("d.fits")

    def test_degenerate_axes_are_accepted(self, folder: Path) -> None:
        plain(folder / "p.fits", (1, 1, 4, 5))
        assert labels("p.fits") == ["p.fits"]

    def test_compressed_image_keeps_the_label_of_a_nameless_one(self, folder: Path) -> None:
        write(folder / "c.fits.fz", fits.CompImageHDU(np.zeros((20, 30), "i2"), header()))
        assert labels("c.fits.fz") == ["c.fits.fz[1]"]

    @pytest.mark.parametrize("suffix", [".gz", ".bz2"])
    def test_packed_files(self, folder: Path, suffix: str) -> None:
        write(folder / f"a.fits{suffix}", image("SCI", 1), image("DQ", 1))
        assert labels(f"a.fits{suffix}") == [f"a.fits{suffix}[SCI,1]"]


class TestNames:
    def test_order_is_as_named_and_globs_are_sorted(self, folder: Path) -> None:
        for name in "cab":
            plain(folder / f"{name}.fits")
        assert labels("b.fits", "*.fits") == ["b.fits", "a.fits", "c.fits"]

    def test_named_twice_is_used_once_and_noted(self, hst: str) -> None:
        found = resolve("a.fits[SCI,1]", "./a.fits")
        assert [ref.label for ref in found.refs] == ["a.fits[SCI,1]", "./a.fits[SCI,2]"]
        assert "./a.fits[SCI,1]: named twice, used once" in found.skipped

    def test_link_to_the_same_file_is_used_once(self, folder: Path) -> None:
        plain(folder / "p.fits")
        (folder / "q.fits").symlink_to("p.fits")
        assert labels("p.fits", "q.fits") == ["p.fits"]

    def test_glob_with_selector(self, folder: Path) -> None:
        for name in "ab":
            write(folder / f"{name}.fits", image("SCI", 1), image("SCI", 2))
        assert labels("?.fits[SCI,2]") == ["a.fits[SCI,2]", "b.fits[SCI,2]"]

    def test_glob_with_character_class(self, folder: Path) -> None:
        for name in ("i1", "i2", "i3"):
            plain(folder / name)
        assert labels("i[12]") == ["i1", "i2"]

    def test_file_of_exactly_that_name_wins(self, folder: Path) -> None:
        plain(folder / "a[1].fits")
        plain(folder / "b.fits[SCI]")
        plain(folder / "@c")
        assert labels("a[1].fits", "b.fits[SCI]", "@c") == ["a[1].fits", "b.fits[SCI]", "@c"]
        assert labels("a[1].fits[0]") == ["a[1].fits"]

    def test_names_keep_the_spelling_of_the_user(self, folder: Path) -> None:
        plain(folder / "p.fits")
        (ref,) = resolve("./p.fits").refs
        assert (ref.file, ref.path) == ("./p.fits", str(folder / "p.fits"))

    def test_path_objects(self, folder: Path) -> None:
        plain(folder / "p.fits")
        (ref,) = resolve_images([Path("p.fits")], settings=Settings()).refs
        assert ref.file == "p.fits"

    @pytest.mark.parametrize("name", ["gone.fits", "gone.fits[SCI]", "gone*.fits", "gone*.fits[SCI]", ""])
    def test_no_such_file(self, folder: Path, name: str) -> None:
        assert any(word in problem(name) for word in ("no such file", "no file matches", "not a file name"))

    def test_nothing_named(self) -> None:
        assert problem() == "images: none was named"


class TestLists:
    @pytest.fixture(autouse=True)
    def _files(self, folder: Path) -> None:
        (folder / "sub").mkdir()
        for name in ("sub/a.fits", "sub/b c.fits", "sub/d#e.fits", "sub/m.fits"):
            plain(folder / name)

    def test_names_are_relative_to_the_list(self, folder: Path) -> None:
        (folder / "sub/l.txt").write_text("# a comment, isn't it\n\na.fits # it's here\n'b c.fits'\nd#e.fits #don't\n")
        assert labels("@sub/l.txt") == ["sub/a.fits", "sub/b c.fits", "sub/d#e.fits"]

    @pytest.mark.parametrize("between", [" ", ", ", " , "])
    def test_second_column_is_the_mask(self, folder: Path, between: str) -> None:
        (folder / "sub/l.txt").write_text(f"a.fits{between}m.fits[1]\n'b c.fits'\n")
        first, second = resolve("@sub/l.txt").refs
        assert first.mask is not None
        assert (first.mask.file, first.mask.path, first.mask.selector.index) == (
            "sub/m.fits",
            str(folder / "sub/m.fits"),
            1,
        )
        assert second.mask is None

    def test_nested_lists(self, folder: Path) -> None:
        (folder / "sub/l.txt").write_text("a.fits\n")
        (folder / "top.txt").write_text("@sub/l.txt\n")
        assert labels("@top.txt") == ["sub/a.fits"]

    @pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16"])
    def test_lists_of_windows(self, folder: Path, coding: str) -> None:
        text = "# ümlaut\r\n\r\n'b c.fits'\t# first\r\n\"a.fits\"\r\n"
        (folder / "sub/l.txt").write_bytes(text.encode(coding))
        assert labels("@sub/l.txt") == ["sub/b c.fits", "sub/a.fits"]

    def test_a_list_is_no_pipe(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe")  # as of process substitution in a shell
        assert problem("@pipe").startswith("@pipe: is a pipe, not a file (give its names on standard input")
        assert list(lists_among(["@pipe"])) == ["pipe"]

    def test_list_that_names_itself(self, folder: Path) -> None:
        (folder / "l.txt").write_text("@l.txt\n")
        assert "names itself" in problem("@l.txt")

    def test_standard_input(self) -> None:
        assert labels("-", stdin="sub/a.fits\nsub/d#e.fits\n") == ["sub/a.fits", "sub/d#e.fits"]

    @pytest.mark.parametrize("text", ["", "# nothing\n"])
    def test_empty_list(self, folder: Path, text: str) -> None:
        (folder / "l.txt").write_text(text)
        assert problem("@l.txt") == "@l.txt: names no image"

    def test_missing_list(self) -> None:
        assert "can't read the list" in problem("@gone.txt")

    @pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless device")
    def test_list_without_an_end(self) -> None:
        assert problem("@/dev/zero").startswith("@/dev/zero: is not a list of names")

    def test_standard_input_without_an_end(self) -> None:
        class Yes:
            def read(self, n: int) -> str:
                return "y\n" * min(n, 1000)

        (found,) = resolve_images(["-"], settings=Settings(), stdin=Yes()).problems  # type: ignore[arg-type]
        assert str(found) == "standard input: is longer than any list of names (give one name a line)"

    def test_three_columns(self, folder: Path) -> None:
        (folder / "l.txt").write_text("sub/a.fits sub/m.fits 3\n")
        assert problem("@l.txt").startswith("@l.txt, line 1: has more than")

    def test_open_quote(self, folder: Path) -> None:
        (folder / "l.txt").write_text("'sub/a.fits\n")
        assert problem("@l.txt") == "@l.txt, line 1: no closing quotation"

    def test_image_given_as_list(self) -> None:
        assert "not a list" in problem("@sub/a.fits") or "names" in problem("@sub/a.fits")

    @pytest.mark.parametrize("name", ["sub/l.csv", "@sub/l.csv"])
    @pytest.mark.parametrize("delimiter", [",", ";", "|", "\t"])
    def test_tables_of_named_columns(self, folder: Path, name: str, delimiter: str) -> None:
        rows = [
            ["Seeing", "FILE", "mask", "exptype", "group_id"],
            ["0.8", "a.fits", "m.fits[1]", "science", "e1"],
            ["0.9", '"b c.fits"', "", "", "e1"],
            ["1.0", "d#e.fits", "", "background", ""],
        ]
        (folder / "sub/l.csv").write_text("# of tonight\n" + "".join(delimiter.join(row) + "\n" for row in rows))
        found = resolve(name)
        assert [(ref.label, ref.group) for ref in found.refs] == [("sub/a.fits", "e1"), ("sub/b c.fits", "e1")]
        assert found.refs[0].mask is not None
        assert found.refs[0].mask.path == str(folder / "sub/m.fits")
        assert found.refs[1].mask is None
        assert found.skipped == ("sub/d#e.fits: not used: background exposure of sub/l.csv",)

    def test_tables_without_names_of_columns(self, folder: Path) -> None:
        (folder / "l.csv").write_text("sub/a.fits, sub/m.fits\nsub/b c.fits\n")
        assert [(ref.label, ref.mask and ref.mask.file) for ref in resolve("l.csv").refs] == [
            ("sub/a.fits", "sub/m.fits"),
            ("sub/b c.fits", None),
        ]
        (folder / "l.csv").write_text("sub/a.fits,1,2\n")
        assert problem("l.csv").startswith("l.csv, row 1: has more than a name and a mask (name its columns")

    def test_pools_of_jwst(self, folder: Path) -> None:
        (folder / "sub/pool.csv").write_text(
            "FILENAME|EXP_TYPE|BKGDTARG\na.fits|NRC_IMAGE|F\nb c.fits|NRC_TACQ|F\nd#e.fits|MIR_IMAGE|T\n"
        )
        found = resolve("sub/pool.csv")
        assert [ref.label for ref in found.refs] == ["sub/a.fits"]
        assert found.skipped == (
            "sub/b c.fits: not used: target acquisition exposure of sub/pool.csv",
            "sub/d#e.fits: not used: background exposure of sub/pool.csv",
        )

    def test_results_name_their_images(self, folder: Path, hst: str) -> None:
        (folder / "sky.csv").write_text(f"file,ext,extver,group,sky\n{hst},SCI,2,{hst},7.5\n")
        (ref,) = resolve("sky.csv").refs
        assert (ref.label, ref.group) == (f"{hst}[SCI,2]", hst)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("file,sky\n,7\n", "l.csv, row 1: names no image"),
            ("file,sky\n", "l.csv: names no image"),
            ("", "l.csv: names no image"),
            ("file\ngone.fits\n", "gone.fits: no such file"),
            ("file\n" + "x" * 200_000, "l.csv: can't be read as comma-separated values: field larger"),
        ],
    )
    def test_tables_that_name_nothing(self, folder: Path, text: str, said: str) -> None:
        (folder / "l.csv").write_text(text)
        assert problem("l.csv").startswith(said)

    def test_mask_of_the_list_counts_before_the_template(self, folder: Path) -> None:
        (folder / "l.txt").write_text("sub/a.fits sub/m.fits\n")
        (ref,) = resolve("@l.txt", mask="masks/{stem}.fits").refs
        assert ref.mask is not None
        assert ref.mask.file == "sub/m.fits"


class TestMaskTemplate:
    def test_fields(self, hst: str) -> None:
        _, second = resolve(hst, mask="m/{stem}_{extname}{extver:02d}.fits[3]").refs
        assert second.mask is not None
        assert (second.mask.file, second.mask.selector.index) == ("m/a_SCI02.fits", 3)

    @pytest.mark.parametrize("name", ["x.y.fits", "x.y.fits.gz", "x.y.fits.fz", "x.y.fit", "x.y.FITS"])
    def test_stem_has_no_fits_suffixes(self, folder: Path, name: str) -> None:
        plain(folder / "plain.fits")
        data = (folder / "plain.fits").read_bytes()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        (ref,) = resolve(name, mask="{stem}").refs
        assert ref.mask is not None
        assert ref.mask.file == "x.y"

    def test_relative_to_the_current_folder_else_beside_the_image(self, folder: Path) -> None:
        (folder / "sub").mkdir()
        plain(folder / "sub/a.fits")
        plain(folder / "sub/a_m.fits")
        (ref,) = resolve("sub/a.fits", mask="{stem}_m.fits").refs
        assert ref.mask is not None
        assert ref.mask.path == str(folder / "sub/a_m.fits")
        plain(folder / "a_m.fits")
        (ref,) = resolve("sub/a.fits", mask="{stem}_m.fits").refs
        assert ref.mask is not None
        assert ref.mask.path == str(folder / "a_m.fits")

    @pytest.mark.parametrize("template", ["{name}.fits", "{stem", "{}", "{stem.__class__}", "{extver:z}"])
    def test_bad_templates_are_usage_errors(self, folder: Path, template: str) -> None:
        with pytest.raises(UsageError, match="--mask"):
            resolve("a.fits", mask=template)


class TestBadFiles:
    def test_all_are_listed(self, folder: Path) -> None:
        plain(folder / "good.fits")
        (folder / "text.fits").write_text("hello")
        found = resolve("gone.fits", "good.fits", "text.fits")
        assert [ref.label for ref in found.refs] == ["good.fits"]
        assert [p.where for p in found.problems] == ["gone.fits", "text.fits"]

    def test_directory(self, folder: Path) -> None:
        (folder / "d.fits").mkdir()
        assert problem("d.fits").startswith("d.fits: is a directory")

    def test_empty_file(self, folder: Path) -> None:
        (folder / "e.fits").touch()
        assert problem("e.fits") == "e.fits: is empty (copy or make it again, or leave it out with --skip-bad)"

    def test_broken_link(self, folder: Path) -> None:
        (folder / "e.fits").symlink_to("gone")
        assert problem("e.fits") == "e.fits: no such file"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_no_permission(self, folder: Path) -> None:
        plain(folder / "p.fits")
        (folder / "p.fits").chmod(0)
        assert problem("p.fits") == "p.fits: can't be read: Permission denied"

    def test_git_lfs_pointer(self, folder: Path) -> None:
        (folder / "p.fits").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        assert problem("p.fits").endswith("is a Git LFS pointer, not the image itself (run `git lfs pull`)")

    def test_table(self, folder: Path) -> None:
        write(folder / "t.fits", fits.BinTableHDU.from_columns([fits.Column("x", "E", array=np.zeros(3))]))
        assert problem("t.fits").startswith("t.fits[1]: is a table")

    def test_cube(self, folder: Path) -> None:
        write(folder / "c.fits", image("SCI", 1, shape=(6, 4, 5)))
        hint = "(--planes each matches each of its 6 planes by itself)"
        assert problem("c.fits") == f"c.fits[1]: is a cube (6 × 4 × 5) {hint}"
        assert problem("c.fits[SCI]") == f"c.fits[SCI,1]: is a cube (6 × 4 × 5) {hint}"

    def test_spectrum(self, folder: Path) -> None:
        plain(folder / "s.fits", (7,))
        assert "one-dimensional" in problem("s.fits")

    def test_no_pixels(self, folder: Path) -> None:
        write(folder / "n.fits")
        assert problem("n.fits") == "n.fits: holds no image"
        assert "has no pixels" in problem("n.fits[0]")

    def test_only_masks(self, folder: Path) -> None:
        write(folder / "w.fits", image("WEIGHT"))
        assert "name one" in problem("w.fits")

    def test_pipes_and_devices_are_refused_and_not_waited_for(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe.fits")
        assert problem("pipe.fits").startswith("pipe.fits: is a pipe or a device")
        assert "is a pipe or a device" in problem("/dev/null")

    @pytest.mark.parametrize("keep", [100, 2880, 2880 + 1000, 2880 * 2, 2880 * 2 + 40])
    def test_truncated(self, folder: Path, keep: int) -> None:
        whole = Path(write(folder / "t.fits", image("SCI", 1))).read_bytes()
        (folder / "t.fits").write_bytes(whole[:keep])
        found = resolve("t.fits")
        assert found.refs == ()
        assert found.problems[0].where == "t.fits"

    @pytest.mark.parametrize("keep", [30, 100, 150])
    def test_truncated_gzip(self, folder: Path, keep: int) -> None:
        whole = Path(write(folder / "t.fits", image("SCI", 1))).read_bytes()
        (folder / "t.fits.gz").write_bytes(gzip.compress(whole)[:keep])
        assert problem("t.fits.gz").startswith("t.fits.gz: truncated or damaged")

    def test_missing_padding_at_the_end_is_no_harm(self, folder: Path) -> None:
        whole = Path(plain(folder / "p.fits")).read_bytes()
        (folder / "p.fits").write_bytes(whole[: 2880 + 4 * 5 * 4])
        assert labels("p.fits") == ["p.fits"]

    def test_absurd_size_is_refused_by_the_length_of_the_file(self, folder: Path) -> None:
        raw = Path(plain(folder / "p.fits")).read_bytes()
        huge = raw.replace(b"NAXIS1  =                    5", b"NAXIS1  =      999999999999999")
        (folder / "p.fits").write_bytes(huge)
        assert "truncated" in problem("p.fits")
        (folder / "p.fits.gz").write_bytes(gzip.compress(huge))
        assert "truncated" in problem("p.fits.gz")

    def test_absurd_size_of_a_compressed_image(self, folder: Path) -> None:
        write(folder / "c.fits", fits.CompImageHDU(np.zeros((20, 30), "i2"), header()))
        raw = (folder / "c.fits").read_bytes()
        for key in (b"ZNAXIS1 ", b"ZTILE1  "):
            assert raw.count(key + b"=                   30") == 1
            raw = raw.replace(key + b"=                   30", key + b"=      999999999999999")
        (folder / "c.fits").write_bytes(raw)
        assert "claims" in problem("c.fits")

    @pytest.mark.parametrize(
        ("kind", "card", "instead"),
        [
            ("tiled", b"ZTILE2  =                    1", b"ZTILE2  =                    0"),
            ("tiled", b"ZTILE2  =                    1", b"ZTILE2  =                    3"),
            ("tiled", b"ZCMPTYPE= 'RICE_1  '", b"ZCMPTYPE= 'RICE_9  '"),
            ("tiled", b"ZVAL1   =                   32", b"ZVAL1   =                    0"),
            ("tiled", b"TFIELDS =                    1", b"TFIELDS =            999999999"),
            ("plain", b"BITPIX  =                  -32", b"BITPIX  =                   17"),
            ("plain", b"BITPIX  =                  -32", b"BITPIX  = 'x'                 "),
            ("plain", b"NAXIS   =                    2", b"NAXIS   =                  2.5"),
            ("plain", b"NAXIS   =                    2", b"NAXIS   =                    3"),
            ("plain", b"NAXIS1  =                    5", b"NAXIS1  =                   -5"),
        ],
    )
    def test_invalid_structure(self, folder: Path, kind: str, card: bytes, instead: bytes) -> None:
        if kind == "plain":
            plain(folder / "p.fits")
        else:
            write(folder / "p.fits", fits.CompImageHDU(np.zeros((20, 30), "i2"), header()))
        raw = (folder / "p.fits").read_bytes()
        assert raw.count(card) == 1
        (folder / "p.fits").write_bytes(raw.replace(card, instead))
        assert f"HDU {int(kind == 'tiled')} is not valid FITS" in problem("p.fits")

    def test_header_without_end(self, folder: Path) -> None:
        (folder / "p.fits").write_bytes(b"SIMPLE  =                    T".ljust(80) + b"COMMENT x".ljust(80) * 200_000)
        assert "no END card" in problem("p.fits")

    def test_bytes_after_the_last_hdu_are_no_harm(self, folder: Path) -> None:
        raw = Path(plain(folder / "p.fits")).read_bytes()
        (folder / "p.fits").write_bytes(raw + b"trailing" * 360)
        assert labels("p.fits") == ["p.fits"]


@pytest.mark.skipif(not SHARED.exists(), reason="real data are not here")
class TestRealFiles:
    def test_odd_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(SHARED / "data" / "odd")
        found = resolve("*.fits")
        assert [ref.label for ref in found.refs] == ["m13_rice.fits[1]", "small_3D.fits"]
        assert [p.where for p in found.problems] == ["SIP_lfs_pointer.fits", "no_wcs.fits", "tb.fits[1]"]

    def test_2mass(self) -> None:
        assert len(resolve(str(SHARED / "data/m17_2mass_k/*.fits.gz")).refs) == 8


def test_real_paths_are_those_of_each_path_alone(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.fits").touch()
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "there" / "b.fits").symlink_to("a.fits")
    names = ["there/a.fits", "there/b.fits", "link/a.fits", "link/b.fits", "link/gone.fits", "link/../link", "link/"]
    paths = [*(f"{tmp_path}/{name}" for name in names), "a.fits", "https://example.org/a.fits"]
    assert real_paths(paths) == [real_path(path) for path in paths]
