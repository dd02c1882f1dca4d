"""Blocks of every kind of latent: exact, and as long as the prior says."""

import numpy as np
import pytest

from hvq_jax.codec.latent_codec import Block
from hvq_jax.codec.range_coder import DamagedStreamError
from tests.codec.conftest import COUNT, Case


@pytest.mark.parametrize("portable", [False, True])
def test_a_block_returns_in_the_bits_of_the_prior(case, portable):
    codec = case.codec(portable=portable)
    block = codec.encode(case.tokens, case.labels, COUNT)
    tokens, labels = codec.decode(block, COUNT, COUNT)
    np.testing.assert_array_equal(tokens, case.tokens)
    np.testing.assert_array_equal(labels, case.labels)
    bits = case.bits.sum()
    least = 0.9 if codec.has_residuals else 0.999  # the prior gives mass to residuals beyond the block's digits
    assert least * bits - 10 < 8 * len(block.stream) < 1.001 * bits + 8


def test_a_single_image_costs_at_most_a_byte_more(case):
    codec, bits = case.codec(portable=False), case.bits
    for number in range(2):
        one = slice(number, number + 1)
        block = codec.encode(case.tokens[one], case.labels[one], 1)
        tokens, _ = codec.decode(block, 1, 1)
        np.testing.assert_array_equal(tokens, case.tokens[one])
        assert 8 * len(block.stream) < bits[number] + 8.1


def test_padding_changes_nothing_that_is_decoded(case):
    codec = case.codec(portable=False)
    block = codec.encode(case.tokens[:2], case.labels[:2], COUNT)
    np.testing.assert_array_equal(codec.decode(block, 2, COUNT)[0], case.tokens[:2])


def test_a_residual_far_from_all_others_returns():
    case = Case("residuals")
    present = np.argwhere(np.asarray(case.has_continuous)[0][case.tokens[..., 0]])[0]
    case.tokens[(*present, 2)] = -(2**24)
    codec = case.codec()
    block = codec.encode(case.tokens, case.labels, COUNT)
    assert block.digits == 24
    np.testing.assert_array_equal(codec.decode(block, COUNT, COUNT)[0], case.tokens)


def test_a_number_of_digits_that_does_not_exist_is_an_error():
    with pytest.raises(DamagedStreamError, match="digits"):
        Case("residuals").codec().decode(Block(b"", 255), COUNT, COUNT)
