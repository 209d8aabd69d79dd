"""What tests of messages share."""

import pytest

from echosyn.runtime.errors import EchosynError


def refused(call, *arguments, **options):
    """The text of the EchosynError that a call raises."""
    with pytest.raises(EchosynError) as e:
        call(*arguments, **options)
    return str(e.value)


def written(path, data):
    """The path, whose file holds these bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
