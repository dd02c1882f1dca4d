"""ONNX models give what JAX's programs give, in onnxruntime."""

import jax
import numpy as np
import pytest

from hvq_jax.errors import UserError
from hvq_jax.export import onnx_programs
from hvq_jax.export.parts import autoencoder_parts
from tests.export.models import tiny_model


@pytest.fixture(autouse=True)
def onnxruntime():
    """The package, imported where a test runs: with jax2onnx it takes seconds."""
    pytest.importorskip("jax2onnx")
    return pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("kind", ["frequency", "combined", "residual"])
def test_models_give_the_same_codes_and_images(kind, tmp_path, onnxruntime):
    model, variables = tiny_model(kind)
    _, note = onnx_programs.write_onnx_programs(tmp_path, model, variables)
    assert "onnxruntime gave 0 of" in note
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1), np.uint8)
    encoder, decoder = (onnxruntime.InferenceSession(tmp_path / f"{name}.onnx") for name in ("encoder", "decoder"))
    names = [result.name for result in encoder.get_outputs()]
    codes = dict(zip(names, encoder.run(names, {"images": images}), strict=True))
    own_encoder, own_decoder = autoencoder_parts(model, variables)
    expected = jax.jit(own_encoder.function)(images=images)
    assert codes.keys() == expected.keys()
    np.testing.assert_array_equal(codes["indices"], expected["indices"])
    for name in codes.keys() - {"indices"}:
        np.testing.assert_allclose(codes[name], expected[name], rtol=1e-4, atol=1e-5)
    (decoded,) = decoder.run(None, {name: np.asarray(values) for name, values in expected.items()})
    own = np.asarray(jax.jit(own_decoder.function)(**expected)["images"], int)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded - own).max() <= 1


def test_a_conversion_that_gives_other_images_is_refused(tmp_path, monkeypatch):
    """As jax2onnx 0.12 does for transposed convolutions, whose size it gets wrong."""
    model, variables = tiny_model("vq")
    call = onnx_programs._Session.__call__

    def wrong(self, **arguments):
        return {name: 255 - values for name, values in call(self, **arguments).items()}

    monkeypatch.setattr(onnx_programs._Session, "__call__", wrong)
    with pytest.raises(UserError, match="converts this run wrongly"):
        onnx_programs.write_onnx_programs(tmp_path, model, variables)
