"""Draws given all that is kept, against exact enumeration of a 2x2 model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hvq_jax.errors import ArgumentError
from hvq_jax.priors.importance import sample_given_kept
from hvq_jax.priors.sampling import Kept, all_codes
from tests.priors.models import pixelcnn_prior, random_variables
from tests.priors.test_sampling import EVERYWHERE, GAINS, all_latents

COUNT = 1500  # draws
LATENTS = all_latents("projected")
HAS_GAIN = EVERYWHERE[None]
KEY = jax.random.key(0)
MODEL = pixelcnn_prior(3, heads=(GAINS,))


@pytest.fixture(scope="module")
def variables():
    # Large parameters: what comes later says much about what is before it.
    return jax.tree.map(lambda x: 1.5 * x, random_variables(MODEL, LATENTS[:1], None, HAS_GAIN, seed=3))


@pytest.fixture(scope="module")
def nats(variables):
    """Of every latent, at every position."""
    return jax.tree.map(np.float64, jax.jit(MODEL.apply)(variables, LATENTS, None, HAS_GAIN))


def distance(p, q):
    return 0.5 * np.abs(p - q).sum()


def distributions(nats, rows, kept):
    """Return the exact distribution over the latents `rows`, equal where `kept`, and that of single proposals."""
    whole = np.exp(-nats.total[rows].sum((1, 2)))
    of_kept = (nats.codes * np.asarray(kept.codes) + nats.continuous * np.asarray(kept.continuous))[rows]
    return whole / whole.sum(), np.exp(of_kept.sum((1, 2)) - nats.total[rows].sum((1, 2)))


def groups(kept):
    """Return the numbers of the latents that agree where they are kept, for each way to keep."""
    where = np.concatenate([kept.codes[..., None], kept.continuous[..., None]], axis=-1)
    _, group = np.unique((LATENTS * where).reshape(len(LATENTS), -1), axis=0, return_inverse=True)
    return [np.flatnonzero(group == number) for number in range(group.max() + 1)]


@functools.partial(jax.jit, static_argnames="proposals")
def draw(variables, keys, kept, proposals):
    return sample_given_kept(
        MODEL, variables, None, keys, 2, 2, kept=kept, proposals=proposals, has_continuous=HAS_GAIN
    )


def frequencies(variables, kept, rows, proposals, count=COUNT):
    keys = jax.random.split(KEY, count)
    repeated = Kept(jnp.broadcast_to(kept.tokens, (count, *kept.tokens.shape[1:])), kept.codes, kept.continuous)
    tokens = np.asarray(draw(variables, keys, repeated, proposals).tokens)
    numbers = {row.tobytes(): i for i, row in enumerate(LATENTS[rows])}
    return np.bincount([numbers[row.tobytes()] for row in tokens], minlength=len(rows)) / count


FIRST = jnp.array([[True, False], [False, False]])


@pytest.mark.parametrize(
    "kept_of", [all_codes, lambda tokens: Kept(tokens, ~FIRST, ~FIRST)], ids=["codes", "all but the first position"]
)
def test_with_more_proposals_draws_tend_to_the_exact_conditional(variables, nats, kept_of):
    masks = kept_of(jnp.asarray(LATENTS[:1]))
    rows = min(groups(masks), key=lambda rows: abs(distance(*distributions(nats, rows, masks)) - 0.4))
    exact, forced = distributions(nats, rows, masks)
    np.testing.assert_allclose(forced.sum(), 1, atol=1e-4)
    kept = kept_of(jnp.asarray(LATENTS[rows[:1]]))
    one, some, many = (frequencies(variables, kept, rows, proposals) for proposals in (1, 4, 16))
    noise = 0.5 * np.sqrt(2 / np.pi / COUNT) * np.sqrt(exact).sum()  # the distance that draws from `exact` would have
    assert distance(one, forced) < 3 * noise
    assert distance(exact, one) > 0.2
    assert distance(exact, one) > 1.5 * distance(exact, some) > 2 * distance(exact, many)
    assert distance(exact, many) < 0.07 + noise


def test_where_nothing_is_kept_behind_a_draw_every_proposal_counts(variables):
    top = jnp.array([[True, True], [False, False]])
    kept = Kept(jnp.asarray(LATENTS[100:105]), top, top)
    chosen = draw(variables, jax.random.split(KEY, 5), kept, 16)
    np.testing.assert_allclose(chosen.effective_proposals, 16, rtol=1e-4)
    np.testing.assert_array_equal(chosen.tokens[:, 0], kept.tokens[:, 0])
    last = draw(variables, jax.random.split(KEY, 5), all_codes(kept.tokens), 16)
    assert (np.asarray(last.effective_proposals) < 15).any()
    assert (np.asarray(last.effective_proposals) >= 1).all()


@pytest.mark.parametrize("proposals", [0, -3, 4097])
def test_a_number_of_proposals_out_of_range_is_one_line(variables, proposals):
    kept = all_codes(jnp.asarray(LATENTS[:1]))
    with pytest.raises(ArgumentError, match=rf"^proposals={proposals}: must be from 1 to 4096$"):
        sample_given_kept(MODEL, variables, None, jax.random.split(KEY, 1), 2, 2, kept=kept, proposals=proposals)


def test_a_draw_depends_on_its_own_key_and_latent_only(variables):
    keys, kept = jax.random.split(KEY, 5), all_codes(jnp.asarray(LATENTS[200:205]))
    whole = draw(variables, keys, kept, 16).tokens
    turned = draw(variables, keys[::-1], Kept(kept.tokens[::-1], kept.codes, kept.continuous), 16).tokens
    np.testing.assert_array_equal(whole, turned[::-1])
