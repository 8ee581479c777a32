"""What the file says about itself (modelspec)."""

from library.config.option import JOB, Group, Option
from library.config.values import path_or_name

# fmt: off
METADATA = Group("Metadata", (
    Option("metadata_title",             str, None, "title (else output_name)"),
    Option("metadata_author",            str, None, "author"),
    Option("metadata_description",       str, None, "description"),
    Option("metadata_license",           str, None, "license"),
    Option("metadata_tags",              str, None, "tags, separated by commas"),
    Option("metadata_usage_hint",        str, None, "how to use it"),
    Option("metadata_thumbnail",         path_or_name, None, "small picture: a file or a data URL"),
    Option("metadata_merged_from",       str, None, "what it was merged from"),
    Option("metadata_trigger_phrase",    str, None, "words that call it"),
    Option("metadata_preprocessor",      str, None, "preprocessor that it needs"),
    Option("metadata_is_negative_embedding", str, None, "whether it is a negative embedding"),
), decides=JOB)
