"""The files of a run: the names of everything in its folder."""

CONFIG = "config.json"
DATASET = "dataset.json"
HISTORY = "history.json"
FORMAT_FILE = "format.json"
LATENTS = "latents.npz"
TABLES = "tables.npz"
SUMMARY = "summary.json"
LOSS_CURVES = "loss_curves.png"
RECONSTRUCTIONS = "reconstructions.png"
SAMPLES = "samples.png"
REPORT = "report.html"  # written by its own command
METRICS = "metrics.jsonl"
EVENTS = "events"
CHECKPOINTS = "checkpoints"
PROFILE = "profile"
TRACKERS = "trackers.json"
WANDB = "wandb"  # the folder that Weights & Biases writes to

# Files that are written with `files.whole_file`.
WHOLE = (
    CONFIG,
    DATASET,
    HISTORY,
    FORMAT_FILE,
    LATENTS,
    TABLES,
    SUMMARY,
    LOSS_CURVES,
    RECONSTRUCTIONS,
    SAMPLES,
    METRICS,
    TRACKERS,
)

# Everything of a run.
NAMES = frozenset((*WHOLE, EVENTS, CHECKPOINTS, PROFILE, WANDB))

# The outputs of a run that are listed when it ends.
MADE = {
    SUMMARY: "metrics on the test split",
    LOSS_CURVES: "losses of both stages",
    RECONSTRUCTIONS: "originals, reconstructions and errors",
    SAMPLES: "one row of samples per class",
    METRICS: "every logged metric",
    EVENTS: "the same for TensorBoard (pip install tensorboard)",
    WANDB: "the run for Weights & Biases (wandb sync sends what is not sent yet)",
    CHECKPOINTS: "the newest and the best of each stage",
}

# Version of config.json, checkpoints, latents.npz and tables.npz together. 1 had no number; in 2, codes were counted in
# assignments per step, and codebook.revive_below too.
FORMAT = 6
