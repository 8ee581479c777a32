"""What is written, when, under which name, and where a run goes on."""

from pathlib import Path

from library.config.option import JOB, NOTHING, Group, Needs, Option
from library.config.values import count_or_none, file_name, path_or_name, period

UPLOAD = "nothing is uploaded; copy the files where you want them"
NAME = "a finished file of this name and other settings is not replaced without `--overwrite`; sd-scripts replaces it"
PLACE = "where a new run's count begins; a resumed run finds its place itself"
STATE = "a state has all that resuming needs to be exact, and a list of its files; it is there whole or not at all"

# fmt: off
SAVING = Group("Saving and resuming", (
    Option("output_dir",                 Path,   None,  "folder of everything that the run leaves",
           known_as=("output", "output_folder", "out_dir"), decides=NOTHING, of_batch="it is in [batch]"),
    Option("output_name",                file_name, None,  "name of the files, without folder and ending",
           known_as=("name", "model_name"), decides=NOTHING, in_metadata=True, differs=NAME,
           of_batch="it is in [batch]"),
    Option("save_model_as",              str,    "safetensors", "kind of the network file",
           choices=("ckpt", "pt", "safetensors")),
    Option("save_precision",             str,    None,  "precision in the file (else that of training)",
           choices=("float", "fp16", "bf16"),
           other_words=(("fp32", "float"), ("float32", "float"), ("float16", "fp16"), ("bfloat16", "bf16"))),
    Option("save_every_n_epochs",        period, None,  "also save after each nth epoch", minimum=1),
    Option("save_every_n_steps",         period, None,  "also save after each nth step", minimum=1),
    Option("save_n_epoch_ratio",         period, None,  "save about this many times over the run", minimum=1),
    Option("save_last_n_epochs",         period, None,  "keep the files of the last n epochs", minimum=1),
    Option("save_last_n_epochs_state",   period, None,  "the same for states", minimum=1),
    Option("save_last_n_steps",          period, None,  "keep the files of the last n steps", minimum=1),
    Option("save_last_n_steps_state",    period, None,  "the same for states", minimum=1),
    Option("save_state",                 bool,   False, "with each file, also what resuming needs",
           known_as=("save_training_state",), differs=STATE),
    Option("save_state_on_train_end",    bool,   False, "the same at the end only", differs=STATE),
    Option("resume",                     path_or_name, None, "state to go on from: its folder, or `latest`",
           known_as=("resume_from", "resume_from_checkpoint", "resume_path", "resume_dir"), decides=NOTHING,
           differs="exact to the bit on a CPU; also `latest`; a state of another configuration is refused",
           of_batch="a batch goes on by itself"),
    Option("resume_with_changes",        bool,   False, "go on from a state of other rates or data; each is reported",
           needs=Needs("resume"), decides=NOTHING, of_sd_scripts=False),
    Option("overwrite",                  bool,   False, "replace a finished file of this name and other settings",
           known_as=("force", "overwrite_output"), decides=NOTHING, of_sd_scripts=False),
    Option("initial_epoch",              count_or_none, None,  "begin a new run at this epoch (from 1)", minimum=1,
           differs=PLACE),
    Option("initial_step",               int,    None,  "begin a new run after so many steps", minimum=0,
           differs=PLACE),
    Option("skip_until_initial_step",    bool,   False, "begin in the middle of an epoch",
           needs=Needs("initial_step"), differs="begins inside the epoch, also with accumulation"),
    Option("no_metadata",                bool,   False, "write only the metadata that loading needs"),
    Option("huggingface_repo_id",        str,    None,  "repository to upload to", inert=UPLOAD),
    Option("huggingface_repo_type",      str,    None,  "its type", inert=UPLOAD),
    Option("huggingface_path_in_repo",   str,    None,  "folder in it", inert=UPLOAD),
    Option("huggingface_token",          str,    None,  "token for it", inert=UPLOAD, secret=True),
    Option("huggingface_repo_visibility", str,   None,  "public or private", inert=UPLOAD),
    Option("save_state_to_huggingface",  bool,   False, "upload states", inert=UPLOAD),
    Option("resume_from_huggingface",    bool,   False, "resume from an uploaded state",
           inert="nothing is downloaded; give --resume a folder"),
    Option("async_upload",               bool,   False, "upload while training", inert=UPLOAD),
), decides=JOB)
