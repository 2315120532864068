"""Rows as tensors for PyTorch; imported only where somebody asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from lakegate import _epochs, _tensors
from lakegate._rows_file import RowsFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class TorchRows(IterableDataset):
    """Batches of a local file as dictionaries of tensors; made by :meth:`lakegate.Result.to_torch`.

    It can be sent to the workers of a `DataLoader`, however they are started: it holds no connection, only the files'
    places, and each worker reads its own part.
    """

    def __init__(
        self,
        file: RowsFile,
        *,
        batch_size: int,
        shuffle: int | None,
        shard: tuple[int, int],
        drop_last: bool,
        shuffle_window: int | None,
    ):
        super().__init__()
        self._file: RowsFile | None = file
        self._paths: tuple[Path, ...] = file.paths
        self._rows = file.rows
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._shard = shard
        self._drop_last = drop_last
        self._window = shuffle_window
        # Workers that persist from one pass to the next have a copy of this object, but share this with it.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def rows(self) -> int:
        """How many rows there are in all shards together."""
        return self._rows

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass over the rows, before it begins."""
        self._epoch[0] = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        shard = self._shard
        if worker is not None:
            shard = _epochs.worker_shard(shard, worker=worker.id, workers=worker.num_workers)
        # A worker maps the file itself; one that was forked leaves its parent's mapping alone.
        file = self._file if self._file is not None and worker is None else RowsFile(*self._paths)
        if self._shuffle is None:
            batches = _epochs.in_order(file.batches(), shard=shard)
        else:
            seed = f"{self._shuffle} epoch {int(self._epoch[0])}"
            batches = _epochs.shuffled(file, seed=seed, shard=shard, window_rows=self._window)
        for batch in _epochs.of_one_size(batches, size=self._batch_size, drop_last=self._drop_last):
            yield {
                name: values if isinstance(values, list) else torch.from_numpy(values)
                for name, values in _tensors.arrays(batch).items()
            }

    def __getstate__(self) -> dict[str, Any]:
        # A mapping of a file cannot be sent to another process; its place can.
        return {**self.__dict__, "_file": None}
