"""Every option with its default; the other configs are small overrides of this one.

    python train.py --config=configs/default.py:projected --config.data.name=fashion_mnist --workdir=runs/a

The argument after the colon is the latent: vq, projected, frequency or combined. Any option is set on the command line
by its dotted name, e.g. --config.latent.num_frequent=128.
"""

from ml_collections import ConfigDict, config_dict


def get_config(mode: str = "projected") -> ConfigDict:
    """All options; `mode` is the latent the decoder sees."""
    return ConfigDict(
        {
            "seed": 0,  # everything random follows from it
            "stage": "all",  # "autoencoder", "prior", or "all": both, one after the other
            "parallel": "pmap",  # "pmap": all devices of all hosts share each batch; "jit": one device
            "data": {
                # mnist, fashion_mnist, fashion_mnist_mini, cifar10, cifar100, image_folder, or any data set that TFDS
                # has prepared: name[/config][:version]
                "name": "fashion_mnist",
                "data_dir": config_dict.placeholder(str),  # prepared data sets; none: TFDS's folder
                # published files, none: download them; the folder of image_folder
                "manual_dir": config_dict.placeholder(str),
                "image_size": 0,  # shorter side resized to it, then the centre cropped; 0: as stored
                "channels": 0,  # 1: grey, 3: colour; 0: as stored
                "validation_size": 5000,  # images taken from train where there is no validation split
                "test_size": 5000,  # likewise where there is no test split
                "skip_corrupt": False,  # leave out the images of image_folder that cannot be read, and list them
                "memory_gib": 4.0,  # larger data sets are streamed from disk
            },
            "augment": {  # of the autoencoder's training images; drawn anew each epoch
                "flip": False,  # mirror left and right, every other image
                "crop_padding": 0,  # pixels of reflected border before a random crop to the same size; 0: off
                # smallest share of the area of a random crop resized to the same size; 0: off
                "resized_crop_min_scale": 0.0,
            },
            "latent": {
                "mode": mode,
                "num_codes": 512,  # K
                "dim": 64,  # D, width of the latent and of both networks
                "num_frequent": 312,  # S: so many codes are frequent (frequency, combined)
                "frequent_mass": config_dict.placeholder(float),  # m: in place of S, codes up to this mass
                "frequency_decay": 0.99,  # of the table F a step; 1: cumulative, 0: this batch's
                # how P is differentiated: both, both_through_st, encoder, straight_through
                "projection_gradient": "straight_through",
                "projection_groups": 1,  # g: so many gains a position, one for each D/g channels; g = D is z_e itself
                # the gradient of plain codes: straight_through, or rotation (turned and scaled with the vector)
                "estimator": "straight_through",
            },
            "network": {
                "num_blocks": 2,  # residual blocks, in the encoder and in the decoder
                "skip": "identity",  # residual blocks: "identity" x + f, "rectified" relu(x) + f (reference)
                # of the convolutions: "float32", or "bfloat16" for accelerators; parameters, statistics, latents and
                # losses are float32 either way
                "compute_dtype": "float32",
            },
            "codebook": {
                # "ema": moving averages of encoder outputs; "spherical": their directions, of length 1 (projected:
                # with loss.commitment_target=projection); "gradient": parameters; "fsq": no codebook, see levels (vq)
                "method": "ema",
                # "data": encoder outputs of the first batches; "kmeans": centres of their clusters;
                # "uniform": U(-1/K, 1/K)
                "init": "data",
                "decay": 0.99,  # of the moving averages
                "revive_below": 1.0,  # codes assigned less often a step are put on encoder outputs; 0: never (averages)
                # which code a vector is given: "euclidean" the nearest, "cosine" that of the nearest direction,
                # "projection" that of the nearest line, whatever the sign (projected)
                "assignment": "euclidean",
                "normalize": False,  # codes and encoder outputs are divided by their lengths
                "depth": 1,  # 2 to 4: residual quantization, K codes a level (vq, ema; there is no prior for it)
                "levels": (8, 8, 8),  # of fsq: each number is rounded to so many; K is their product
            },
            "loss": {
                "codebook_weight": 1.0,  # of |z_q - sg z_e|²; gradient-trained codebooks only
                "commitment_weight": 0.25,  # beta, of |z_e - sg t|²; not of fsq
                "commitment_target": "code",  # t: "code" z_q, or "projection" P
                "projection_weight": 0.25,  # of |P - sg z_q|²; projected, combined
                # of E[H(p)] - H(E[p]), p = softmax(-distance² / temperature): vectors sure of their code, all codes in
                # use; 0: off
                "entropy_weight": 0.0,
                "entropy_temperature": 1.0,
            },
            "autoencoder": {
                "batch_size": 128,  # over all devices
                "num_epochs": 20,
                "num_steps": 0,  # if not 0, in place of num_epochs
                "learning_rate": 3e-3,  # of Adam
                "schedule": "cosine",  # "constant", or "cosine": to 0 at the last step
                "warmup_steps": 100,  # linear, from 0
                "clip_norm": 0.0,  # of the whole gradient; 0: off
                "average_decay": 0.0,  # of the moving average of the parameters that is evaluated; 0: off
                "log_every_steps": 50,
                "eval_every_steps": 0,  # on the validation split; 0: every epoch
                "checkpoint_every_steps": 0,  # besides after every evaluation; 0: only then
                "keep_checkpoints": 2,  # the newest; the best on validation is kept besides
                "check_replicas_every_steps": 500,  # that all devices hold the same state, bit for bit; 0: never
                # so many steps are started at once, where a step is short; best a divisor of every `..._every_steps`
                "steps_per_dispatch": 1,  # on CPU, compiling takes so many times as long
            },
            "prior": {
                # an .npz of grids of whole numbers, in place of an autoencoder's (stage=prior); see the README
                "latents": config_dict.placeholder(str),
                "name": "pixelcnn",  # or "transformer", causal
                "conditional": True,  # on the class label
                "label_dropout": 0.1,  # share of training images without their label, for --guidance in sampling
                # none: 64 and 15 of a pixelcnn, 192 and 3 of a transformer, which has about as many parameters
                "width": config_dict.placeholder(int),
                "num_layers": config_dict.placeholder(int),
                "num_heads": 4,  # of the transformer
                "dropout": 0.0,  # likewise
                "head_width": 512,
                # of projected and combined: the signed length is one of so many bins; 1: each code's mean, no prior
                "num_bins": 16,
                "bins_per_code": True,  # a table of bins for each code, or one for all
                "residual_step": 0.1,  # of frequency: the residual is rounded to its multiples
                "num_components": 8,  # Gaussians in the mixture that predicts it
                "compute_dtype": "float32",  # or "bfloat16", as above; logits and what is drawn by them are float32
                "batch_size": 128,
                "num_epochs": 20,
                "num_steps": 0,
                "learning_rate": 1e-3,
                "schedule": "cosine",
                "warmup_steps": 100,
                "clip_norm": 1.0,
                "average_decay": 0.0,
                "log_every_steps": 50,
                "eval_every_steps": 0,
                "checkpoint_every_steps": 0,
                "keep_checkpoints": 2,
                "check_replicas_every_steps": 500,
                "steps_per_dispatch": 1,
            },
            "sampling": {  # of samples.png at the end of the second stage
                "per_class": 8,
                "temperature": 1.0,
                "top_k": 0,  # 0: off
                "top_p": 1.0,  # 1: off
                "continuous_temperature": 1.0,  # of gains and residuals; the others are of codes
                "guidance": 0.0,  # w: (1 + w) times the logits of the class less w times those of no class; 0: off
                # trains a small classifier on the same images and reports its accuracy on 100 samples a class
                "classify": False,
            },
        }
    )
