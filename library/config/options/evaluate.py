"""Options of evaluate.py: the pictures, the metrics, and where their networks lie."""

from pathlib import Path

from library.config.option import Group, Option
from library.config.options.config import CONFIG
from library.config.values import names

# fmt: off
PICTURES = Group("The pictures", (
    Option("generated",                  Path,  None,  "folder of the pictures to measure"),
    Option("reference",                  Path,  None,  "folder of the pictures they should be like: the training set"),
    Option("base",                       Path,  None,
           "folder of the untrained model's pictures for the same prompts: a floor for FID"),
    Option("only",                       str,   None,  "take only generated pictures of such names: '*_e000020_*'"),
    Option("prompts",                    Path,  None,
           'lines of JSON, {"file": "a_*.png", "prompt": "..."}; else NAME.txt, or what is written in the PNG'),
))
MEASURED = Group("What is measured", (
    Option("metrics",                    names, None,  "such as clip_t,dino,kid; all of them without it"),
    Option("require",                    names, None,  "exit code 3 if one of these cannot be measured"),
    Option("list",                       bool,  False, "show which networks are found where, and stop"),
    Option("weights",                    Path,  None,
           "TOML file that says where networks lie; else only the local Hugging Face cache is looked at"),
    Option("resize",                     str,   "clean",
           "how pictures come to Inception's size: clean (Pillow's bicubic) or legacy (TensorFlow 1's bilinear)",
           choices=("clean", "legacy")),
    Option("scores",                     Path,  None,  "CSV of scores from elsewhere: a column file, one per score"),
    Option("against",                    Path,  None,
           "eval.json of another model on the same prompts: differences per prompt, with intervals"),
    Option("paper_table",                bool,  False,
           "also fid_64 and fid_192 and the cosines of whole folders, which are comparable with nothing else"),
))
WORK = Group("Files and speed", (
    Option("output",                     Path,  Path("eval.json"), "the JSON file to write"),
    Option("cache",                      Path,  None,  "folder that keeps what networks have seen, for the next call"),
    Option("batch_size",                 int,   8,     "pictures that a network sees at once", minimum=1),
    Option("device",                     str,   None,  "cpu or cuda (else cuda where there is one)",
           choices=("cpu", "cuda")),
))
# fmt: on
ALL_EVALUATE = (PICTURES, MEASURED, WORK, CONFIG)
