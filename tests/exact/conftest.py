"""The zygote is shared by all tests of a session."""

import pytest
from zygote import Zygote


@pytest.fixture(scope="session")
def zygote():
    with Zygote() as started:
        yield started
