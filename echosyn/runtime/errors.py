"""The one exception a user is meant to read."""


class EchosynError(Exception):
    """Something the user can fix. The message names what, where, the value and the fix.

    Stages print it without a traceback and exit with status 1; anything else that escapes a
    stage is a defect of ours and keeps its traceback.
    """
