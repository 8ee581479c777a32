"""Options that are read and checked, but do nothing yet: the one place that says so.

Take a name out in the commit that makes it work.
"""

from collections.abc import Mapping
from dataclasses import replace

from library.config.option import Group

_BY_REASON = {
    "not implemented yet": """
        """,
}
NOT_YET: Mapping[str, str] = {name: reason for reason, names in _BY_REASON.items() for name in names.split()}


def marked(group: Group) -> Group:
    """The group, with the options that do nothing yet saying so."""
    marks = ((option, NOT_YET.get(option.name)) for option in group)
    return Group(group.title, (replace(option, inert=why) if why else option for option, why in marks))
