import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from app import create_app  # noqa: E402
from instance import Instance  # noqa: E402

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def app(tmp_path):
    return create_app(tmp_path, instance=Instance({"TODO_VERSION": COMMIT, "TODO_ZONE": "us-east-1b"}))


@pytest.fixture
def client(app):
    return app.test_client()
