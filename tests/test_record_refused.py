"""What can't be written is refused, and links, permissions and locks are those that were there."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from skymatch_cli.errors import InputError
from skymatch_cli.images.formats.files import file_state
from skymatch_cli.record.edits import SkyUpdate
from skymatch_cli.record.write import check_writable, write_skies

from .crash.fileset import chips, contents, make_files, pixels, ref, single, update
from .test_record import RECORD, SKY, SUBTRACT, header

# --- refusals: one line each, nothing written


def test_file_that_changed_since_it_was_measured_is_refused(tmp_path):
    good, bad = single(tmp_path / "a.fits", pixels("f4")), single(tmp_path / "b.fits", pixels("f4"))
    updates = [
        SkyUpdate(ref=ref(path), sky=1.0, sky_err=0.1, method="match", state=file_state(str(path)))
        for path in (good, bad)
    ]
    os.utime(bad, ns=(0, 0))
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"b\.fits: was changed since it was measured"):
        write_skies(updates, RECORD)
    assert contents(tmp_path) == before


def test_all_bad_files_are_named_and_nothing_is_written(tmp_path):
    good = single(tmp_path / "a.fits", pixels("f4"))
    cut = single(tmp_path / "b.fits", pixels("f4"))
    cut.write_bytes(cut.read_bytes()[:3000])
    (tmp_path / "c.fits").write_bytes(b"")
    paths = [good, cut, tmp_path / "c.fits", tmp_path / "gone.fits"]
    before = contents(tmp_path)
    with pytest.raises(InputError) as caught:
        write_skies([update(path) for path in paths], RECORD)
    assert [p.where for p in caught.value.problems] == [str(p) for p in paths[1:]]
    assert contents(tmp_path) == before


def test_remote_file_is_not_changed_in_place():
    remote = SkyUpdate(ref=ref(Path("x")), sky=1.0, sky_err=0.1, method="match")
    remote = SkyUpdate(ref=type(remote.ref)("s3://b/a.fits", "s3://b/a.fits", 0), sky=1.0, sky_err=0.1, method="user")
    assert "--output-dir" in check_writable([remote], RECORD)[0].hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_file_and_folder(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    path.chmod(0o444)
    assert "is read-only" in check_writable([update(path)], RECORD)[0].what
    path.chmod(0o644)
    tmp_path.chmod(0o555)
    try:
        assert "folder is read-only" in check_writable([update(path)], RECORD)[0].what
    finally:
        tmp_path.chmod(0o755)


def test_image_that_is_not_there(tmp_path):
    path = chips(tmp_path / "a.fits")
    for hdu in (5, 17):  # a table; no such HDU
        assert "no longer in the file" in check_writable([update(path, hdu)], RECORD)[0].what


def test_subtracted_by_an_unknown_amount_is_refused(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"), BKGSUB=True)
    assert "the subtracted sky is not known" in check_writable([update(path)], SUBTRACT)[0].what


# --- links, permissions, locks


def test_link_is_followed_and_stays_a_link(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    link = tmp_path / "link.fits"
    link.symlink_to("a.fits")
    write_skies([update(link)], RECORD)
    assert link.is_symlink()
    assert header(path)["BKGLEVEL"] == SKY


def test_permissions_are_kept(tmp_path):
    path = single(tmp_path / "a.fits", pixels("f4"))
    path.chmod(0o640)
    write_skies([update(path)], RECORD)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_no_folder_or_file_is_left_over(tmp_path):
    updates = make_files(tmp_path)
    names = list(contents(tmp_path))
    (tmp_path / ".a.fits.skymatch-tmp").write_bytes(b"of a run that was killed")
    write_skies(updates, SUBTRACT)
    assert list(contents(tmp_path)) == names


@pytest.mark.parametrize("what", ["file", "temporary"])
def test_second_run_says_so_and_stops(tmp_path, what):
    path, other = single(tmp_path / "a.fits", pixels("f4")), single(tmp_path / "b.fits", pixels("f4"))
    held = path if what == "file" else tmp_path / ".a.fits.skymatch-tmp"
    held.touch()
    before = contents(tmp_path)
    with held.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing here"):
            write_skies([update(other), update(path)], RECORD)
        assert contents(tmp_path) == before
        write_skies([update(other)], RECORD)  # other files are free


def test_lock_outlives_the_replacement_of_the_file(tmp_path):
    from skymatch_cli.record.atomic import locked, replacement

    path = single(tmp_path / "a.fits", pixels("f4"))
    with locked([str(path)]) as locks:
        with replacement(str(path), file_state(str(path)), locks) as new:
            new.write(path.read_bytes())
        with pytest.raises(InputError, match="another run"), locked([str(path)]):
            pass
    with locked([str(path)]):
        pass


def test_run_with_more_files_than_it_may_open_locks_the_folder(tmp_path, monkeypatch):
    import resource

    from skymatch_cli.record.atomic import locked

    updates = make_files(tmp_path)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (204, 204))
    write_skies(updates, RECORD)
    with locked([str(tmp_path / n) for n in contents(tmp_path)]):
        monkeypatch.undo()
        with pytest.raises(InputError, match="another run"):
            write_skies(updates[:1], RECORD)


def test_folder_that_cannot_be_locked_is_an_error_of_the_input(tmp_path, monkeypatch):
    import errno

    path = single(tmp_path / "a.fits", pixels("f4"))
    real = os.open

    def too_many(name: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECTORY:
            raise OSError(errno.EMFILE, "Too many open files", name)
        return real(name, flags, mode)

    monkeypatch.setattr(os, "open", too_many)
    with pytest.raises(InputError, match=r"Too many open files.*ulimit -n"):
        write_skies([update(path)], RECORD)


def test_file_that_changes_while_it_is_written_stays(tmp_path, monkeypatch):
    from skymatch_cli.record import disk

    path = single(tmp_path / "a.fits", pixels("f4"))
    sync = disk.sync

    def change_then_sync(fd: int) -> None:
        path.write_bytes(b"of another program")
        sync(fd)

    monkeypatch.setattr(disk, "sync", change_then_sync)
    with pytest.raises(InputError, match="was changed while it was being written"):
        write_skies([update(path)], RECORD)
    assert contents(tmp_path) == {"a.fits": b"of another program"}


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_file_that_vanished_is_an_error_and_nothing_is_left(tmp_path, monkeypatch, when):
    from skymatch_cli.record import disk

    paths = [single(tmp_path / f"{name}.fits", pixels("f4")) for name in "ab"]
    updates, sync = [update(path) for path in paths], disk.sync
    if when == "before":
        paths[1].unlink()
    else:
        monkeypatch.setattr(disk, "sync", lambda fd: (paths[1].unlink(missing_ok=True), sync(fd)))
    with pytest.raises(InputError, match=r"b\.fits: no such file"):
        write_skies(updates, SUBTRACT)
    assert list(contents(tmp_path)) == ["a.fits"]
    assert ("BKGSUB" in header(paths[0])) == (when == "meanwhile")  # found before the first file is touched
