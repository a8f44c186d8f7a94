"""The two ways work ends early; every room may raise them, only the shell and the page catch them."""


class LabError(Exception):
    """Bad input. The message is one line that names what is wrong, where, and the remedy."""


class Cancelled(Exception):  # noqa: N818 - not an error: somebody pressed stop
    """Raised out of a tick when somebody stopped the work; whoever holds a half-written thing removes it."""
