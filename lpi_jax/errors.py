"""The one exception that means "the user can mend this": main prints its sentence and exits with status 2."""


class UserError(ValueError):
    """A user's mistake, told in one sentence that names the thing, its value and what was expected."""


def reason(error: Exception) -> str:
    """What another library's exception says, in one short line; its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__
