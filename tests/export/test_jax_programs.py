"""Exported programs give what hvq_jax's own functions give."""

import jax
import numpy as np
import pytest

from hvq_jax import autoencoder
from hvq_jax.errors import ArgumentError
from hvq_jax.export.jax_programs import check_platforms, write_jax_programs
from hvq_jax.export.parts import autoencoder_parts
from hvq_jax.images import to_float, to_uint8
from tests.export.models import KINDS, tiny_model

pytest.importorskip("flatbuffers")  # by which JAX serializes


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)


def programs_of(kind, folder):
    model, variables = tiny_model(kind)
    written, _ = write_jax_programs(folder, autoencoder_parts(model, variables), ("cpu",))
    return (
        model,
        variables,
        {
            name: jax.jit(jax.export.deserialize(bytearray((folder / program["file"]).read_bytes())).call)
            for name, program in written.items()
        },
    )


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_the_same_bits_and_images_the_same_grey_levels(kind, images, tmp_path):
    model, variables, programs = programs_of(kind, tmp_path)

    @jax.jit
    def own(variables, images):
        latent = autoencoder.encode_to_latent(model, variables, to_float(images))
        return latent, to_uint8(autoencoder.decode(model, variables, latent.z_bar))

    latent, decoded = own(variables, images)
    codes = programs["encoder"](images=images)
    np.testing.assert_array_equal(codes["indices"], latent.indices)
    assert ("gains" in codes) == (kind in ("projected", "combined", "groups"))
    assert ("residuals" in codes) == (kind == "frequency")
    if "gains" in codes:
        np.testing.assert_array_equal(codes["gains"], latent.gain_seen)
    # A residual is z_e - e, so e + (z_e - e) is z_e up to rounding.
    levels = np.abs(np.asarray(programs["decoder"](**codes)["images"], int) - np.asarray(decoded, int))
    assert levels.max() <= (1 if kind == "frequency" else 0)


def test_any_batch_size_and_no_mixing_of_images(images, tmp_path):
    _, _, programs = programs_of("combined", tmp_path)
    together = programs["encoder"](images=images)
    alone = programs["encoder"](images=images[3:4])
    for name, values in together.items():
        np.testing.assert_allclose(alone[name], values[3:4], rtol=1e-5)


@pytest.mark.parametrize(
    ("platforms", "says"),
    [(("cpu", "gpu"), "platforms=gpu: choose one of cpu, cuda, rocm, tpu"), ((), "once"), (("cpu", "cpu"), "once")],
)
def test_platforms_that_there_are_not(platforms, says):
    with pytest.raises(ArgumentError, match=says):
        check_platforms(platforms)
