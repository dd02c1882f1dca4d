"""The settings of the report and its PyTorch code (`ritheshkumar95/pytorch-vqvae`): gradient codebook, no revival.

    python train.py --config=configs/reference.py:vq --workdir=runs/reference

D = 256, K = 512, beta = 1, Adam 2e-4 (prior 3e-4), batch 128, 100 epochs of each stage, cumulative frequency table,
plain differentiation of the projection. The report names no data set; this config uses Fashion-MNIST. Expect few codes
in use (tens of 512), which the defaults fix.
"""

from ml_collections import ConfigDict

from hvq_jax.runs.options import default_config


def get_config(mode: str = "projected") -> ConfigDict:
    """Return the report's options; `mode` is the latent."""
    config = default_config(mode)
    config.latent.dim = 256
    config.latent.frequency_decay = 1.0
    config.latent.projection_gradient = "both"
    config.network.skip = "rectified"
    config.codebook.learning = "gradient"
    config.codebook.init = "uniform"
    config.loss.commitment_weight = 1.0
    config.loss.projection_weight = 1.0
    config.prior.label_dropout = 0.0
    for stage, learning_rate in ((config.autoencoder, 2e-4), (config.prior, 3e-4)):
        stage.batch_size = 128
        stage.num_epochs = 100
        stage.learning_rate = learning_rate
        stage.schedule = "constant"
        stage.warmup_steps = 0
        stage.clip_norm = 0.0
    return config
