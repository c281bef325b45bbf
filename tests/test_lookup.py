"""Names in ``--reference`` and ``--skylist``, and the images that they mean."""

from __future__ import annotations

import pytest

from skymatch_cli.errors import InputError
from skymatch_cli.images.lookup import ImageFinder, find_reference, read_skylist
from skymatch_cli.model import ImageRef

N_MANY = 30_000


def image(path, hdu=0, ext="", ver=1, file=None):
    return ImageRef(file=file or str(path), path=str(path), hdu=hdu, ext=ext, extver=ver)


@pytest.fixture
def refs(tmp_path):
    return [
        image(tmp_path / "n1" / "a.fits", 1, "SCI", 1),
        image(tmp_path / "n1" / "a.fits", 3, "SCI", 2),
        image(tmp_path / "n2" / "a.fits", 1, "SCI", 1),
        image(tmp_path / "n2" / "b.fits"),
    ]


def test_a_path_means_all_images_of_its_file_and_brackets_some(refs, tmp_path):
    find = ImageFinder(refs).find
    path = str(tmp_path / "n1" / "a.fits")
    assert find(path) == (0, 1)
    assert find(f"{path}[SCI,2]") == find(f"{path}[3]") == (1,)
    assert find(f"{path}[sci]") == find(f"{path}[*]") == (0, 1)
    assert find(f"{path}[ERR]") == ()


def test_a_base_name_means_a_file_where_no_other_has_it(refs):
    find = ImageFinder(refs).find
    assert find("b.fits") == (3,)
    assert find("a.fits") == ()  # two files
    assert find("c.fits") == ()


def test_a_path_through_a_link_or_from_the_folder_means_the_same_file(refs, tmp_path, monkeypatch):
    (tmp_path / "n1").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "n1")
    monkeypatch.chdir(tmp_path)
    find = ImageFinder(refs).find
    assert find("linked/a.fits") == find("./n1/../n1/a.fits") == (0, 1)


def test_the_spelling_of_the_user_is_a_name_too():
    assert ImageFinder([image("/data/a.fits", file="../here/a.fits")]).find("../here/a.fits") == (0,)


def test_the_reference_is_one_group(refs, tmp_path):
    path = str(tmp_path / "n1" / "a.fits")
    assert find_reference(path, refs, ["g", "g", "h", "i"]) == 0
    with pytest.raises(InputError, match="several images"):
        find_reference(path, refs, ["g", "h", "i", "j"])
    with pytest.raises(InputError, match="not one of the images"):
        find_reference("a.fits", refs, ["g", "g", "h", "i"])


def test_a_skylist_of_many_images_looks_at_each_name_once(tmp_path, monkeypatch):
    refs = [image(tmp_path / f"{k}.fits") for k in range(N_MANY)]
    (tmp_path / "sky.txt").write_text("".join(f"{k}.fits {k}\n" for k in range(N_MANY)))
    compared = []
    monkeypatch.setattr(ImageRef, "label", property(lambda ref: compared.append(ref) or ref.file))
    monkeypatch.setattr("skymatch_cli.images.names.Selector.fits", lambda *_: compared.append(0) or True)
    assert read_skylist(str(tmp_path / "sky.txt"), refs) == {k: float(k) for k in range(N_MANY)}
    assert not compared


def test_every_line_and_every_image_that_is_wrong_is_named(refs, tmp_path):
    (tmp_path / "sky.txt").write_text("b.fits 1\nb.fits 2\nnone.fits 1\nb.fits nan\nb.fits\n")
    with pytest.raises(InputError) as caught:
        read_skylist(str(tmp_path / "sky.txt"), refs)
    lines = caught.value.lines()
    assert [w in line for w, line in zip(("line 2", "line 3", "line 4", "line 5"), lines, strict=False)] == [True] * 4
    assert len(lines) == 4 + 1  # the three images without a sky are named in one line
    assert [name in lines[4] for name in ("a.fits[SCI,1]", "a.fits[SCI,2]", "has no sky in")] == [True] * 3
