"""A new word's vectors, trained alone or together with a network."""

from pathlib import Path

from library.config.option import JOB, Group, Option
from library.config.values import key_value

# fmt: off
EMBEDDINGS = Group("Embedding", (
    Option("token_string",               str,   None,  "train vectors for this new word, which captions then use",
           known_as=("placeholder_token", "placeholder", "trigger", "token", "trigger_word"),
           shapes_tensors=True),
    Option("num_vectors_per_token",      int,   1,     "how many vectors stand for the word", minimum=1, maximum=75,
           known_as=("num_vectors", "token_count", "tokens", "num_new_tokens_per_abstraction"),
           shapes_tensors=True),
    Option("init_word",                  str,   None,  "the word whose vectors they start from",
           known_as=("initializer_token", "initial_embedding_text", "init_words", "init_text")),
    Option("weights",                    Path,  None,  "an embedding file to start from; goes before the initializer",
           known_as=("embedding_weights", "embeddings"), names_a_file=True),
    Option("embedding_initializer",      str,   "embeddings.from_word",
           "Python module that makes their start", known_as=("initializer", "init_method")),
    Option("initializer_args",           key_value, None, "further arguments of that module", nargs="*",
           known_as=("initializer_arguments", "embedding_initializer_args")),
    Option("use_object_template",        bool,  False, "caption with sentences about a thing, such as a photo of a {}"),
    Option("use_style_template",         bool,  False, "caption with sentences about a style"),
    Option("caption_template",           str,   None,
           "captions, or what templates say of the word: one of these each time, {} is the word", nargs="*"),
    Option("embedding_lr",               float, None,  "learning rate of the vectors (else learning_rate)", minimum=0,
           known_as=("embedding_learning_rate", "learning_rate_embedding", "textual_inversion_lr", "ti_lr"),
           is_rate=True),
    Option("reg_weight",                 float, None,  "weight of the pull towards the start (else the initializer's)",
           minimum=0),
    Option("embedding_start_step",       int,   0,     "train the vectors from this step on", minimum=0),
    Option("embedding_stop_step",        int,   None,  "train the vectors only up to this step", minimum=1,
           known_as=("stop_embedding_training_after", "stop_training_after")),
    Option("network_start_step",         int,   0,     "train the network only from this step on", minimum=0),
    Option("bundle_embeddings",          bool,  False,
           "put the vectors into the network's file too, for web UIs; diffusers then refuses it", decides=JOB),
), of_sd_scripts=False)
