"""`benchmarks.networks` compares priors with equal numbers of parameters."""

import pytest

from benchmarks import networks
from hvq_jax.errors import UserError
from hvq_jax.priors.pixelcnn import PixelCNN
from hvq_jax.priors.prior import Prior


def test_a_transformer_has_about_as_many_parameters_as_the_pixelcnn():
    like = networks.num_parameters(networks.pixelcnn(), 4)
    assert like == 1_841_472  # the reference's
    model = networks.transformer_like(like, 4, 192)
    ours = networks.num_parameters(model, 4)
    layer = ours - networks.num_parameters(networks.transformer(4, 192, model.network.num_layers - 1), 4)
    assert abs(ours - like) <= layer / 2  # one layer more or less is farther


def test_a_real_run_prints_a_row_a_network(monkeypatch, capsys):
    monkeypatch.setattr(networks, "WIDTHS", (16,))
    monkeypatch.setattr(networks, "SHORTEST", 0.0)
    small = Prior(8, PixelCNN(10, width=4, num_layers=1), head_width=8)
    monkeypatch.setattr(networks, "pixelcnn", lambda: small)
    networks.main(["--grid=2", "--batch=2", "--repetitions=1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:4]] == [["| PixelCNN", "4"], ["| Transformer", "16"]]
    assert lines[2].endswith("| 1.00 |")


def test_bad_input_is_one_line():
    for wrong in ("--grid=0", "--batch=0", "--repetitions=0"):
        with pytest.raises(UserError, match="at least 1"):
            networks.main([wrong])
