"""Makes the server of the Python client's tests known to the tests of other clients."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python-client" / "tests"))

from served import client, served

__all__ = ["client", "served"]
