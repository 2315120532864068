"""Query a lakegate server: SQL in, pandas, polars or Arrow out.

>>> import lakegate
>>> with lakegate.connect("grpc://127.0.0.1:8815") as client:  # doctest: +SKIP
...     frame = client.sql("select * from nyc.planes").to_pandas()
"""

from lakegate._announcement import ColumnSize, Estimate
from lakegate._cache import Cache, CacheEntry
from lakegate._client import Client, Table, connect
from lakegate._errors import (
    Cancelled,
    Conflict,
    InternalError,
    InvalidQuery,
    LakegateError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Timeout,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from lakegate._progress import Progress
from lakegate._result import Result

__version__ = "0.1.0"

__all__ = [
    "Cache",
    "CacheEntry",
    "Cancelled",
    "Client",
    "ColumnSize",
    "Conflict",
    "Estimate",
    "InternalError",
    "InvalidQuery",
    "LakegateError",
    "NotFound",
    "PermissionDenied",
    "Progress",
    "ResourceExhausted",
    "Result",
    "Table",
    "Timeout",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "connect",
]
