"""Files behind URLs: read in pieces, never changed."""

from __future__ import annotations

import builtins
import gzip
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import Result

from skymatch_cli.images.formats.files import base_name, is_remote

from .commands import run
from .factories import row, write, write_all
from .servers import HttpServer, http_server

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sessions of aiohttp live as long as the process
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[HttpServer, Path]]:
    folder = tmp_path / "served"
    write_all(folder, row([100.0, 105.0], noise=1.0))
    with http_server(folder) as server:
        yield server, folder


def skies(done: Result) -> list[float]:
    assert done.exit_code == 0, done.stderr
    return [image["sky"] for image in json.loads(done.stdout)["images"]]


def test_urls_give_what_files_give(served: tuple[HttpServer, Path]) -> None:
    server, folder = served
    here = run("match", "--dry-run", "--format", "json", *sorted(folder.iterdir()))
    there = run("match", "--dry-run", "--format", "json", f"{server.url}/img_0.fits", f"{server.url}/img_1.fits")
    assert skies(there) == skies(here)
    assert json.loads(there.stdout)["images"][0]["file"] == f"{server.url}/img_0.fits"


def test_packed_and_compressed_files_are_read(served: tuple[HttpServer, Path]) -> None:
    server, folder = served
    (folder / "img_0.fits.gz").write_bytes(gzip.compress((folder / "img_0.fits").read_bytes()))
    with fits.open(folder / "img_1.fits") as hdus:
        fits.CompImageHDU(hdus[0].data, hdus[0].header, compression_type="GZIP_2", quantize_level=0).writeto(
            folder / "img_1.fits.fz"
        )
    names = [f"{server.url}/img_0.fits.gz", f"{server.url}/img_1.fits.fz[1]"]
    assert skies(run("match", "--dry-run", "--format", "json", *names)) == skies(
        run("match", "--dry-run", "--format", "json", *sorted(folder.glob("*.fits")))
    )


def test_only_the_rows_of_the_overlap_travel(tmp_path: Path) -> None:
    """Two frames of 16 MB that share their outer tenth: much less than half of each is fetched."""
    folder = tmp_path / "served"
    folder.mkdir()
    frame = row([0.0])[0].but(nx=1000, ny=2000)
    for name, y in (("a.fits", 0.0), ("b.fits", 1800.0)):
        write(folder / name, frame.but(y=y), pixels=np.random.default_rng(1).normal(100, 1, (2000, 1000)))
    with http_server(folder) as server:
        done = run("plan", f"{server.url}/a.fits", f"{server.url}/b.fits")
        assert done.exit_code == 0, done.stderr
        assert max(server.sent.values()) < 10**6
        assert run("match", "--dry-run", f"{server.url}/a.fits", f"{server.url}/b.fits").exit_code == 0
        assert max(server.sent.values()) < 8 * 10**6


def test_a_server_without_ranges_sends_the_whole_file(served: tuple[HttpServer, Path]) -> None:
    _, folder = served
    with http_server(folder, ranges=False) as server:
        names = [f"{server.url}/img_0.fits", f"{server.url}/img_1.fits"]
        assert len(skies(run("match", "--dry-run", "--format", "json", *names))) == 2


@pytest.mark.parametrize("args", [["match"], ["match", "--subtract"], ["undo"]])
def test_files_behind_urls_are_not_changed(served: tuple[HttpServer, Path], args: list[str]) -> None:
    server, _ = served
    done = run(*args, f"{server.url}/img_0.fits", f"{server.url}/img_1.fits")
    assert done.exit_code == 3
    assert "files behind a URL are not changed (write copies with --output-dir" in done.stderr
    assert server.sent == {}  # nothing was read


def test_copies_go_to_the_output_folder(served: tuple[HttpServer, Path], tmp_path: Path) -> None:
    server, folder = served
    names = [f"{server.url}/img_0.fits?version=1", f"{server.url}/img_1.fits"]
    done = run("match", "--subtract", "--output-dir", tmp_path / "out", *names)
    assert done.exit_code == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["img_0.fits", "img_1.fits"]
    with fits.open(tmp_path / "out" / "img_1.fits") as new, fits.open(folder / "img_1.fits") as old:
        assert new[0].header["BKGLEVEL"] == pytest.approx(5, abs=0.5)
        assert np.allclose(new[0].data, old[0].data - new[0].header["BKGLEVEL"])
    assert run("undo", *sorted((tmp_path / "out").iterdir())).exit_code == 0


def test_lists_hold_urls_with_masks(served: tuple[HttpServer, Path], tmp_path: Path) -> None:
    server, folder = served
    fits.PrimaryHDU(np.ones((40, 40), "u1")).writeto(folder / "mask.fits")
    names = tmp_path / "names.txt"
    names.write_text(f"{server.url}/img_0.fits {server.url}/mask.fits\n{server.url}/img_1.fits\n")
    assert len(skies(run("match", "--dry-run", "--format", "json", f"@{names}"))) == 2
    assert server.sent["mask.fits"] > 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("{url}/nothing.fits", "no such file"),
        ("{url}/img_0.fits[SCI,x]", "names no extension"),
        ("nosuch://host/a.fits", "can't be read: Protocol not known"),
        ("http://127.0.0.1:9/a.fits", "can't be read"),
    ],
)
def test_what_can_not_be_had_is_a_problem(served: tuple[HttpServer, Path], name: str, says: str) -> None:
    server, _ = served
    done = run("match", "--dry-run", name.format(url=server.url), f"{server.url}/img_1.fits")
    assert done.exit_code == 3
    assert says in done.stderr
    assert "unexpected" not in done.stderr


def test_a_file_that_changes_is_noticed(served: tuple[HttpServer, Path]) -> None:
    from skymatch_cli.errors import InputError
    from skymatch_cli.images.image import read_infos
    from skymatch_cli.images.inputs import resolve_images
    from skymatch_cli.images.pixels import read_pixels
    from skymatch_cli.settings import Settings

    server, folder = served
    infos = read_infos(resolve_images([f"{server.url}/img_0.fits"], settings=Settings()), Settings(), need_wcs=True)
    write(folder / "new.fits", row([50.0])[0])
    (folder / "new.fits").replace(folder / "img_0.fits")
    with pytest.raises(InputError, match="changed while it was in use"):
        read_pixels(infos.infos[0], Settings())


def test_without_the_package_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("fsspec"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="fsspec")
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    done = run("match", "--dry-run", "https://host.example/a.fits")
    assert done.exit_code == 3
    assert "a URL needs the package fsspec (pip install 'skymatch-cli[remote]')" in done.stderr


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("s3://bucket/deep/a.fits", "a.fits"),
        ("https://host.example/a.fits?token=b/c.fits", "a.fits"),
        ("zip://deep/a.fits::https://host.example/all.zip", "a.fits"),
        ("deep/a.fits", "a.fits"),
    ],
)
def test_the_name_of_a_copy(path: str, name: str) -> None:
    assert base_name(path) == name
    assert is_remote(path) == ("://" in path)


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    for package in ("moto", "s3fs", "boto3", "flask"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not here")
    import boto3
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="sky")
        yield client
        server.stop()


@pytest.mark.filterwarnings("ignore")  # of the packages of the server
def test_s3(s3: Any, tmp_path: Path) -> None:
    paths = write_all(tmp_path / "in", row([100.0, 105.0], noise=1.0))
    for path in paths:
        s3.upload_file(path, "sky", f"deep/{Path(path).name}")
    there = run("match", "--dry-run", "--format", "json", "s3://sky/deep/img_0.fits", "s3://sky/deep/img_1.fits")
    assert skies(there) == skies(run("match", "--dry-run", "--format", "json", *paths))
    assert skies(run("match", "--dry-run", "--format", "json", "s3://sky/deep/*.fits")) == skies(there)
    done = run("match", "--output-dir", tmp_path / "out", "s3://sky/deep/img_0.fits", "s3://sky/deep/img_1.fits")
    assert done.exit_code == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert run("match", "--dry-run", "s3://sky/deep/nothing.fits").exit_code == 3


def test_no_file_that_is_written_holds_a_password_or_a_token(served, tmp_path, monkeypatch):
    server, folder = served
    monkeypatch.chdir(tmp_path)
    base = server.url.replace("http://", "http://bob:hunter2@")
    names = [f"{base}/{path.name}?token=SECRET" for path in sorted(folder.iterdir())]
    kept = ["--store", "field.db", "-o", "solution.fits", "--log-file", "run.log", "--report", "r.html", "-v"]
    done = run("match", "--subtract", "--output-dir", "copies", *kept, *names)
    assert done.exit_code == 0, done.stderr
    for form in ("swarp", "regions", "topcat"):
        exported = run("export", "solution.fits", "--to", form, "-o", f"{form}.txt")
        assert exported.exit_code in {0, 3}
        done.stderr_bytes += exported.stderr_bytes
    written = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and folder not in path.parents}
    assert {Path("field.db"), Path("solution.fits"), Path("r.html"), Path("run.log")} <= written.keys()
    for content in (*written.values(), done.stderr_bytes, done.stdout_bytes):
        assert b"hunter2" not in content
        assert b"SECRET" not in content


def test_a_store_does_not_read_urls_whose_token_it_does_not_hold(served, tmp_path, monkeypatch):
    server, folder = served
    monkeypatch.chdir(tmp_path)
    names = [f"{server.url}/{path.name}?token=SECRET" for path in sorted(folder.iterdir())]
    assert run("plan", "--store", "field.db", *names).exit_code == 0
    done = run("measure", "field.db")
    assert done.exit_code == 3
    assert "skymatch stores no tokens: plan, measure and write in one run" in done.stderr
    first = run("match", "--dry-run", "--store", "field.db", "--format", "json", *names)
    sent = sum(server.sent.values())
    renewed = [name.replace("SECRET", "NEWER") for name in names]
    assert skies(run("match", "--dry-run", "--store", "field.db", "--format", "json", *renewed)) == skies(first)
    assert sum(server.sent.values()) < 1.5 * sent  # headers alone: what was found in the pixels is in the store
