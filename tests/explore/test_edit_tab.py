"""The controls of the tab in which a latent is changed, without a browser: what each click changes."""

import numpy as np
import pytest

from tests.explore.open_models import image_of, opened

pytest.importorskip("bokeh", reason="needs the extra explore")

from bokeh.document import Document

from hvq_jax.explore.edit_tab import EditTab
from hvq_jax.explore.edited import encoded
from hvq_jax.explore.session import Session


def do_pending(tab):
    """Do what the server does once its timers are over."""
    while waiting := tab.session.document.session_callbacks:
        waiting[0].callback()


def release(tab, gain):
    """Release the slider at a gain, as the page does: it tells only what is new to it."""
    if tab.gain.value_throttled != gain:
        tab.gain.set_from_json("value", gain)
        tab.gain.set_from_json("value_throttled", gain)


@pytest.fixture
def tab(request):
    """The tab of a run of a tiny model with an image in hand."""
    run = opened(getattr(request, "param", "projected"))
    tab = EditTab(Session(run, Document()))
    tab.layout()
    tab.session.take(image_of(run), encoded(run, image_of(run)))
    return tab


def select(tab, row, column):
    rows, columns = tab.edited.latents.shape[:2]
    height, width = tab.edited.image.shape[:2]
    tab._select_at((column + 0.5) * width / columns, (row + 0.5) * height / rows)


def test_a_change_is_made_where_it_was_asked_for_however_quickly_the_next_click_comes(tab):
    before = tab.edited
    select(tab, 0, 0)
    tab.code.value = code = (int(before.indices[0, 0]) + 1) % 16
    select(tab, 1, 1)
    release(tab, 2.5)
    do_pending(tab)
    assert tab.edited.indices[0, 0] == code
    assert tab.edited.gains[1, 1] == 2.5
    others = np.array([[False, True], [True, True]])
    np.testing.assert_array_equal(tab.edited.indices[others], before.indices[others])
    assert tab.position == (1, 1)
    assert tab.code.value == before.indices[1, 1]


def test_a_change_of_an_image_that_is_no_longer_in_hand_is_dropped(tab):
    run, other = tab.session.run, 255 - image_of(tab.session.run)
    select(tab, 0, 0)
    tab.code.value = (tab.code.value + 1) % 16
    tab.session.take(other, encoded(run, other))
    do_pending(tab)
    np.testing.assert_array_equal(tab.edited.indices, encoded(run, other).indices)
    assert tab.session.status.text == ""


def test_undo_takes_its_turn_after_the_changes_before_it(tab):
    before = tab.edited
    tab.code.value = (tab.code.value + 1) % 16
    tab._undo()
    do_pending(tab)
    assert tab.edited is before


def test_the_same_gain_can_be_chosen_at_one_position_after_another(tab):
    for place in ((0, 0), (1, 0), (1, 1)):
        select(tab, *place)
        release(tab, 2.0)
        do_pending(tab)
        assert tab.edited.gains[place] == 2.0


@pytest.mark.parametrize("tab", ["groups", "residual"], indirect=True)
def test_an_emptied_field_stands_for_the_first(tab):
    first = tab.edited.indices.reshape(4, -1)[0]
    tab.number.value = tab.group.value = None
    select(tab, 0, 0)
    assert tab.code.value == first[0]
    tab.code.value = None
    do_pending(tab)
    np.testing.assert_array_equal(tab.edited.indices.reshape(4, -1)[0], first)
    tab.code.value = code = (int(first[0]) + 1) % 16
    do_pending(tab)
    assert tab.edited.indices.reshape(4, -1)[0, 0] == code
