"""The network that is trained, and its learning rates."""

from pathlib import Path

from library.config.option import JOB, Group, Option
from library.config.values import key_value

# fmt: off
NETWORK = Group("Network", (
    Option("network_module",             str,       None,  "Python module that makes the network, e.g. networks.lora",
           shapes_tensors=True, in_metadata=True,
           differs="imported before a model is loaded; `networks.lora` is this project's, with the same file names"),
    Option("network_dim",                int,       None,  "rank; left out, the module decides (4 in networks.lora)",
           minimum=1, shapes_tensors=True,
           known_as=("network_rank", "rank", "dim", "lora_rank", "lora_dim"), in_metadata=True),
    Option("network_alpha",              float,     1.0,   "the network's output is scaled by alpha / rank", minimum=0,
           known_as=("alpha", "lora_alpha"), shapes_tensors=True, in_metadata=True,
           differs="in the file alpha is float32, also where a whole number was given"),
    Option("network_args",               key_value, None,  "further arguments of the module", nargs="*",
           known_as=("network_arguments", "network_kwargs"), shapes_tensors=True,
           differs="a name that the module does not know is refused with the nearest one, if the module declares them"),
    Option("network_weights",            Path,      None,  "weights to start from", known_as=("lora_network_weights",),
           differs="`networks.lora` refuses a file of which no tensor fits", names_a_file=True),
    Option("dim_from_weights",           bool,      False, "take the ranks from network_weights", recorded_late=True),
    Option("network_dropout",            float,     None,  "share of the rank's neurons dropped in each step",
           minimum=0, maximum=1, in_metadata=True),
    Option("network_train_unet_only",    bool,      False, "train no text encoder",
           known_as=("train_unet_only", "unet_only"), shapes_tensors=True),
    Option("network_train_text_encoder_only", bool, False, "train no U-Net",
           shapes_tensors=True),
    Option("scale_weight_norms",         float,     None,  "largest norm that a module's weights may have", minimum=0,
           in_metadata=True),
    Option("base_weights",               Path,      None,  "network files to merge into the model before training",
           nargs="*", names_a_file=True),
    Option("base_weights_multiplier",    float,     None,  "their strengths, 1 where left out", nargs="*",
           recorded_late=True),
    Option("unet_lr",                    float,     None,  "learning rate of the U-Net's part (else learning_rate)",
           minimum=0, in_metadata=True, is_rate=True),
    Option("text_encoder_lr",            float,     None,  "learning rate of the text encoder's part, or one for each",
           nargs="*", minimum=0,
           known_as=("te_lr", "learning_rate_te", "learning_rate_te1", "learning_rate_te2"), in_metadata=True,
           is_rate=True),
    Option("training_comment",           str,       None,  "a remark for the file's metadata (ss_training_comment)",
           decides=JOB, in_metadata=True),
))
