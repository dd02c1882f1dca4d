import functools
import hashlib
import http.server
import threading

import pytest

from hvq_jax.data.builders.download import PublishedFile, download, find_file
from hvq_jax.errors import UserError

CONTENT = bytes(range(256)) * 10
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    length = None  # to claim in place of the true one

    def log_message(self, *args):
        pass

    def send_header(self, keyword, value):
        super().send_header(keyword, self.length if keyword == "Content-Length" and self.length else value)


@pytest.fixture
def site(tmp_path):
    """A folder served on the loopback interface: (its URL, the folder)."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "images.bin").write_bytes(CONTENT)
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_downloads_once(site, tmp_path):
    url, folder = site
    file = PublishedFile(f"{url}/images.bin", SHA256)
    path = download(file, tmp_path / "downloads")
    assert path == tmp_path / "downloads" / "images.bin"
    assert path.read_bytes() == CONTENT
    (folder / "images.bin").unlink()
    assert download(file, tmp_path / "downloads") == path


def test_replaces_the_part_that_a_killed_download_left(site, tmp_path):
    url, _ = site
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / ".images.bin.tmp").write_bytes(2 * CONTENT)
    assert download(PublishedFile(f"{url}/images.bin", SHA256), downloads).read_bytes() == CONTENT
    assert [path.name for path in downloads.iterdir()] == ["images.bin"]


@pytest.mark.parametrize("served", [CONTENT[:-1], CONTENT + b"x", b""])
def test_refuses_other_content_and_keeps_none_of_it(site, tmp_path, served):
    url, folder = site
    (folder / "images.bin").write_bytes(served)
    with pytest.raises(UserError, match="SHA-256") as caught:
        download(PublishedFile(f"{url}/images.bin", SHA256), tmp_path / "downloads")
    assert f"{url}/images.bin" in str(caught.value)
    assert not list((tmp_path / "downloads").iterdir())


@pytest.mark.parametrize("length", ["abc", "-1", "²", "9" * 5000])
def test_a_length_that_is_no_number_does_no_harm(site, tmp_path, monkeypatch, length):
    monkeypatch.setattr(QuietHandler, "length", length)
    file = PublishedFile(f"{site[0]}/images.bin", SHA256)
    assert download(file, tmp_path / "downloads").read_bytes() == CONTENT


def test_a_download_that_does_not_end_is_stopped(site, tmp_path, monkeypatch):
    monkeypatch.setattr("hvq_jax.data.builders.download._MOST_BYTES", len(CONTENT) - 1)
    with pytest.raises(UserError, match="more than any published file"):
        download(PublishedFile(f"{site[0]}/images.bin", SHA256), tmp_path / "downloads")
    assert not list((tmp_path / "downloads").iterdir())


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_failed_download_names_the_url_and_the_way_out(site, tmp_path, scheme):
    url = f"{site[0]}/absent" if scheme == "http" else (tmp_path / "absent").as_uri()
    with pytest.raises(UserError) as caught:
        download(PublishedFile(url, SHA256), tmp_path / "downloads")
    message = str(caught.value)
    assert url in message
    assert "set data.manual_dir=DIR" in message
    assert "\n" not in message
    assert not list((tmp_path / "downloads").iterdir())


def test_find_file_takes_the_first_name_that_exists(tmp_path):
    (tmp_path / "second").touch()
    assert find_file(tmp_path, "first", "second") == tmp_path / "second"
    (tmp_path / "first").touch()
    assert find_file(tmp_path, "first", "second") == tmp_path / "first"


@pytest.mark.parametrize("folder", ["empty", "absent"])
def test_find_file_names_the_folder(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=str(tmp_path / folder)):
        find_file(tmp_path / folder, "images.gz")
