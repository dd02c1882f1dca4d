"""Changing a latent by hand: the decoder sees the change there, and what it saw before everywhere else."""

import numpy as np
import pytest

import hvq_jax as hvq
from hvq_jax import autoencoder
from hvq_jax.explore.edited import codes_with_gain, encoded, with_code, with_gain
from tests.explore.open_models import image_of, opened

PLACE = (1, 0)


def seen_from(run, edited):
    """What the decoder would see without residuals, `[h, w, D]`."""
    vectors = np.asarray(autoencoder.vectors(run.stream.model, run.stream.variables, edited.indices))
    return np.asarray(hvq.latents.scaled(vectors, edited.gains))


@pytest.mark.parametrize("kind", ["frequency", "combined", "groups", "residual"])
def test_another_code_at_one_position(kind):
    run = opened(kind)
    before = encoded(run, image_of(run))
    np.testing.assert_array_equal(run.decode_latents(before.latents)[0], before.image)
    for code in (3, 11):
        after = with_code(run, before, PLACE, code, number=run.stream.encoded_shapes["indices"][-1] - 1)
        assert after.indices[PLACE].reshape(-1)[-1] == code
        others = np.ones(before.latents.shape[:2], bool)
        others[PLACE] = False
        np.testing.assert_array_equal(after.latents[others], before.latents[others])
        np.testing.assert_array_equal(after.indices[others], before.indices[others])
        np.testing.assert_allclose(after.latents[PLACE], seen_from(run, after)[PLACE], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(after.image, run.decode_latents(after.latents)[0])
        assert (after.latents[PLACE] != before.latents[PLACE]).any()


def test_a_plain_code_has_no_gain_and_another_keeps_it():
    run = opened("combined")
    with_a_gain = codes_with_gain(run)
    assert with_a_gain.sum() == 8  # of 16: the rare ones
    rare, frequent = np.flatnonzero(with_a_gain)[:2], np.flatnonzero(~with_a_gain)[0]
    edited = with_gain(run, with_code(run, encoded(run, image_of(run)), PLACE, rare[0]), PLACE, 2.5)
    np.testing.assert_allclose(edited.latents[PLACE], 2.5 * run.codebook[rare[0]], rtol=1e-6)
    assert with_code(run, edited, PLACE, rare[1]).gains[PLACE] == 2.5
    assert with_code(run, edited, PLACE, frequent).gains[PLACE] == 1


def test_a_gain_of_one_group_of_channels():
    run = opened("groups")
    before = encoded(run, image_of(run))
    after = with_gain(run, before, PLACE, -1.5, group=1)
    code = run.codebook[before.indices[PLACE]]
    np.testing.assert_allclose(
        after.latents[PLACE], [*(before.gains[PLACE][0] * code[:4]), *(-1.5 * code[4:])], rtol=1e-5
    )


def test_latents_without_gains_have_none_to_change():
    for kind in ("vq", "frequency", "residual"):
        assert not codes_with_gain(opened(kind)).any()
