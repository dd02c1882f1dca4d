"""The page of a trained run, in a browser, and what its command refuses."""

import asyncio
import contextlib
import importlib.util
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

from hvq_jax import commands
from hvq_jax.extras import install_command
from tests.browser import needs_chromium, opened

pytest.importorskip("bokeh", reason="needs the extra explore")

from hvq_jax.explore.drawing import IN_TURN, NO_CLASS, labels
from hvq_jax.explore.server import HOST, open_server, serve
from hvq_jax.explore.sheets import Sheet, rgba
from hvq_jax.runs.loaded import load

SECONDS = 300  # to wait for what is compiled on a machine with other work
DRAWN = "() => window.Bokeh?.documents[0]?.get_model_by_name('status')?.text === ''"


@contextlib.contextmanager
def served(workdir):
    """Yield the address of the page, which another thread serves."""
    ready, servers = threading.Event(), []

    def run():
        asyncio.set_event_loop(asyncio.new_event_loop())
        try:
            servers.append(open_server(workdir, 0))
        finally:
            ready.set()
        serve(servers[0])

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield f"http://{HOST}:{servers[0].port}/"
    finally:
        servers[0].io_loop.add_callback(servers[0].io_loop.stop)
        thread.join()


class Reader:
    """A person at the page, who waits to see what comes of a click: the server may be slow to answer."""

    def __init__(self, page):
        self.page = page

    def figure(self, name):
        """The element of the figure with this name."""
        number = self.page.evaluate(
            "name => [...Bokeh.documents[0].roots()[0].select({type: 'Figure'})].findIndex(f => f.name == name)", name
        )
        return self.page.locator(".bk-Figure").nth(number)

    def sees(self, name):
        """The pixels of a figure, without the border that shows whether it has the focus."""
        box, border = self.figure(name).bounding_box(), 4
        inside = {"x": box["x"] + border, "y": box["y"] + border}
        size = {side: box[side] - 2 * border for side in ("width", "height")}
        return self.page.screenshot(clip={**inside, **size})

    def sees_at_last(self, name):
        """The pixels of a figure that is no longer changing."""
        before, now = None, self.sees(name)
        while now != before:
            self.page.wait_for_timeout(200)
            before, now = now, self.sees(name)
        return now

    def waits(self, condition):
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, "nothing came of it"
            self.page.wait_for_timeout(100)

    def click(self, name, x, y):
        """Click on the point of a figure at these shares of its width and height."""
        box = self.figure(name).bounding_box()
        self.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def open_tab(self, title):
        self.page.locator(".bk-tab").get_by_text(title, exact=True).click()

    def enter(self, label, value):
        field = self.page.get_by_label(label)
        field.fill(value)
        field.press("Enter")

    def reads(self, text):
        self.page.get_by_text(text).wait_for()


@needs_chromium
def test_a_person_draws_and_changes_a_code(trained_run, tmp_path):
    Image.fromarray(np.tile(np.arange(40, dtype=np.uint8), (40, 1)) * 6).save(tmp_path / "ramp.png")
    (tmp_path / "text.png").write_text("no image")
    with served(trained_run) as address, opened(1100, 960) as watched:
        page, reader = watched.page, Reader(watched.page)
        page.set_default_timeout(SECONDS * 1000)
        page.goto(address)
        page.wait_for_function(DRAWN)
        first, in_hand = reader.sees_at_last("draw_sheet"), reader.sees_at_last("in_hand")
        reader.enter("Seed", "1")
        reader.press("Draw")
        reader.waits(lambda: reader.sees("draw_sheet") != first)
        reader.click("draw_sheet", 0.5, 0.1)
        reader.waits(lambda: reader.sees("in_hand") != in_hand)

        reader.open_tab("Edit")
        reader.click("edited", 2.5 / 7, 1.5 / 7)
        reader.reads("Position: row 2, column 3")
        before = reader.sees_at_last("edited")
        code = int(page.get_by_label("Code, 0 to 15").input_value())
        reader.enter("Code, 0 to 15", str((code + 8) % 16))
        reader.waits(lambda: reader.sees("edited") != before)
        reader.press("Undo all")
        reader.waits(lambda: reader.sees("edited") == before)
        for place in ((2, 1), (4, 3)):  # the slider is released at the same gain twice
            reader.click("edited", (place[0] + 0.5) / 7, (place[1] + 0.5) / 7)
            reader.reads(f"Position: row {place[1] + 1}, column {place[0] + 1}")
            before = reader.sees_at_last("edited")
            page.locator(".noUi-handle:visible").last.press("End")  # of the gain
            reader.waits(lambda: reader.sees("edited") != before)  # noqa: B023 - now, not later

        in_hand = reader.sees_at_last("in_hand")
        page.locator("input[type=file]").set_input_files(tmp_path / "text.png")
        reader.reads("not a PNG, JPEG, WebP, BMP or GIF image")
        page.locator("input[type=file]").set_input_files(tmp_path / "ramp.png")
        reader.waits(lambda: reader.sees("in_hand") != in_hand)
        uploaded = reader.sees_at_last("in_hand")
        reader.open_tab("Complete")
        empty = reader.sees_at_last("complete_sheet")
        reader.press("Complete")
        reader.waits(lambda: reader.sees("complete_sheet") != empty)
        reader.click("complete_sheet", 0.5, 0.1)
        reader.waits(lambda: reader.sees("in_hand") != uploaded)
    assert watched.errors == []
    assert watched.elsewhere == []


def test_labels_of_drawn_images(trained_run):
    run = load(trained_run)
    assert labels(run, IN_TURN, 12) == [*range(10), 0, 1]
    assert labels(run, NO_CLASS, 3) is None
    assert labels(run, "4", 3) == [4, 4, 4]


def test_a_sheet_and_the_image_at_a_point():
    images = np.random.default_rng(0).integers(0, 255, (5, 3, 4, 3), np.uint8)
    sheet = Sheet(images, num_columns=2, gap=1)
    picture = sheet.picture()
    assert picture.shape == (11, 9, 3)
    for number, image in enumerate(images):
        left, top = sheet.corner(number)
        np.testing.assert_array_equal(picture[top : top + 3, left : left + 4], image)
        assert sheet.number_at(left + 0.5, top + 2.5) == number
    assert sheet.number_at(8.5, 10.5) is sheet.number_at(-1, 1) is sheet.number_at(10.5, 1) is None
    pixels = rgba(picture)
    np.testing.assert_array_equal(pixels.view(np.uint8).reshape(11, 9, 4)[..., :3], picture)


def test_what_cannot_be_served_is_one_line(trained_run, tmp_path, capsys, monkeypatch):
    def error(*arguments):
        assert commands.main("explore", [str(argument) for argument in arguments]) == 1
        line = capsys.readouterr().err
        assert line.startswith("error: ")
        assert line.count("\n") == 1
        return line

    workdir = f"--workdir={trained_run}"
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port={port}: Address already in use; choose another one" in error(workdir, f"--port={port}")
    assert "--port=65536: must be from 0 to 65535" in error(workdir, "--port=65536")
    assert "nowhere" in error(f"--workdir={tmp_path / 'nowhere'}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert f"this needs the package bokeh: {install_command('explore')}" in error(workdir)
