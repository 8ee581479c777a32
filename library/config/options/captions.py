"""The captions and how they are varied."""

from library.config.option import THROUGH, Group, Models, Option
from library.config.options.dataset import ONCE
from library.config.values import count_or_none, token_count

SKIPS_LAYERS = Models(
    "has no effect on SDXL, which reads the last but one layer of its text encoders whatever is asked for",
    families=("sd1", "sd2"),
)

VARY_TAGS = ("shuffle_caption", "caption_tag_dropout_rate", "token_warmup_step")

# fmt: off
CAPTIONS = Group("Captions", (
    Option("caption_extension",          str,   ".caption", "ending of caption files", aliases=("caption_extention",),
           known_as=("caption_ext", "caption_file_extension"), decides=THROUGH, levels="GDS"),
    Option("shuffle_caption",            bool,  False, "shuffle the tags of a caption each time",
           known_as=("shuffle_tags", "shuffle_captions"), decides=THROUGH, differs=ONCE, levels="GDS", described="SF"),
    Option("keep_tokens",                int,   0,     "tags at the beginning that stay in place", minimum=0,
           decides=THROUGH, levels="GDS", described="SF", needs_key=VARY_TAGS),
    Option("keep_tokens_separator",      str,   "",    "text that divides fixed from shuffled tags, e.g. |||",
           decides=THROUGH, differs="never stays in the caption", levels="GDS", described="S"),
    Option("caption_separator",          str,   ",",   "text between tags", decides=THROUGH,
           levels="GDS", needs_key=(*VARY_TAGS, "secondary_separator")),
    Option("secondary_separator",        str,   None,  "text between tags that stay together", decides=THROUGH,
           levels="GDS", described="S"),
    Option("enable_wildcard",            bool,  False, "choose one of {a|b} and one of several caption lines",
           decides=THROUGH, levels="GDS", described="S"),
    Option("caption_prefix",             str,   None,  "text before each caption", decides=THROUGH,
           differs="before every line of a caption of several lines", levels="GDS", described="S"),
    Option("caption_suffix",             str,   None,  "text after each caption", decides=THROUGH,
           differs="behind every line of a caption of several lines", levels="GDS", described="S"),
    Option("caption_dropout_rate",       float, 0.0,   "share of steps in which an image has no caption",
           minimum=0, maximum=1, decides=THROUGH, in_metadata=True, differs=ONCE, levels="GDS"),
    Option("caption_dropout_every_n_epochs", int, 0,   "each nth epoch has no captions", minimum=0,
           decides=THROUGH, in_metadata=True, differs="true to its word with any number of workers and under masks",
           levels="GDS"),
    Option("caption_tag_dropout_rate",   float, 0.0,   "share of tags left out", minimum=0, maximum=1,
           decides=THROUGH, in_metadata=True, differs=ONCE, levels="GDS"),
    Option("token_warmup_min",           int,   1,     "tags at the beginning of the run", minimum=0, decides=THROUGH,
           levels="GDS", needs_key=("token_warmup_step",)),
    Option("token_warmup_step",          float, 0,     "steps, or share of the run, until all tags are used",
           minimum=0, decides=THROUGH, levels="GDS"),
    Option("max_token_length",           token_count, None, "tokens of a caption: 75, 150 or 225", in_metadata=True,
           differs="any number is read as whole chunks of 75"),
    Option("weighted_captions",          bool,  False, "read (tag:1.3) as a weight",
           differs="blanks around a weight are allowed"),
    Option("clip_skip",                  count_or_none, None, "take the text encoder's nth layer from the end",
           minimum=1, models=SKIPS_LAYERS, in_metadata=True),
))
