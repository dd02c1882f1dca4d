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

# The pictures of a run.
PICTURES = (LOSS_CURVES, RECONSTRUCTIONS, SAMPLES)

# Version of config.json, checkpoints, latents.npz and tables.npz together. 1 had no number; in 2, codes were counted in
# assignments per step, and codebook.revive_below too.
FORMAT = 6
