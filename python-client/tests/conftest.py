"""Makes the server of `served.py` known to the client's tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from served import client, served

__all__ = ["client", "served"]
