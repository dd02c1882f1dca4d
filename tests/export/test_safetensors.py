"""Weights of the tiny trained run, as safetensors."""

import json

import numpy as np
import pytest

from hvq_jax import autoencoder
from hvq_jax.export.run import export_run
from hvq_jax.export.weights import fingerprint
from hvq_jax.runs.options import from_dict
from hvq_jax.runs.trained import TrainedRun

safetensors = pytest.importorskip("safetensors")


def test_arrays_metadata_and_card(trained_run, tmp_path):
    from safetensors.numpy import load_file

    assert export_run(trained_run, tmp_path / "out", "safetensors") == ["README.md", "model.safetensors"]
    arrays = load_file(tmp_path / "out" / "model.safetensors")
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "numpy") as file:
        about = file.metadata()
    run = TrainedRun.load(trained_run)
    variables = run.variables
    np.testing.assert_array_equal(
        arrays["params.encoder.conv_in.kernel"], variables.params["encoder"]["conv_in"]["kernel"]
    )
    np.testing.assert_array_equal(
        arrays["batch_stats.decoder.norm_up.mean"], variables.state.batch_stats["decoder"]["norm_up"]["mean"]
    )
    np.testing.assert_array_equal(arrays["quantizer.frequency"], variables.state.quantizer.frequency)
    np.testing.assert_array_equal(arrays["codes"], autoencoder.codes(run.model, variables))
    np.testing.assert_array_equal(arrays["tables.centroids"], run.tables.centroids)
    assert any(name.startswith("prior.params.network.") for name in arrays)
    assert {str(array.dtype) for name, array in arrays.items() if name.startswith(("params", "prior"))} == {"float32"}
    assert about["parameters_sha256"] == fingerprint(arrays)
    assert (about["latent"], about["num_codes"], about["dim"], about["factor"]) == ("projected", "16", "8", "4")
    options = from_dict(json.loads(about["config"]))
    assert options.latent == run.options.latent
    assert options.data.manual_dir is None  # no path of the machine that trained it
    card = (tmp_path / "out" / "README.md").read_text()
    summary = json.loads((trained_run / "summary.json").read_text())
    assert f"| autoencoder | mse | {summary['autoencoder']['test']['mse']:.6g} |" in card
    assert "fashion_mnist" in card
    assert str(trained_run.parent) not in card
