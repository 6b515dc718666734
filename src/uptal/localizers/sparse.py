"""Products of fixed sparse matrices with dense ones, for poolings whose weights never change.

Which matrix a pooling needs is its own affair. Letters: R rows, S columns, O channels, B matrices, P nonzeros.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class SparseRows(NamedTuple):
    """A sparse matrix by rows: row r holds `values[offsets[r]:offsets[r + 1]]` at these columns."""

    offsets: Int[Tensor, " R"]
    columns: Int[Tensor, " P"]
    values: Float[Tensor, " P"]


def sparse_rows(
    row: Int[np.ndarray, " P"], column: Int[np.ndarray, " P"], value: Float[np.ndarray, " P"], num_rows: int
) -> SparseRows:
    """Coordinates in any order, brought into rows."""
    order = np.lexsort((column, row))
    offsets = np.searchsorted(row[order], np.arange(num_rows))
    parts = offsets.astype(np.int32), column[order].astype(np.int32), value[order]
    return SparseRows(*(torch.from_numpy(part) for part in parts))


def _times(rows: SparseRows, dense: Float[Tensor, "B S O"]) -> Float[Tensor, "B R O"]:
    """Sparse matrix times each dense one; a weighted embedding bag is the fastest exact kernel torch has for it."""
    values = rows.values.to(dense.dtype)
    bags = [
        F.embedding_bag(rows.columns, matrix, rows.offsets, mode="sum", per_sample_weights=values)
        for matrix in dense.contiguous()
    ]
    return torch.stack(bags)


class _SparseProduct(torch.autograd.Function):
    """`_times` whose gradient is the product with the transpose: no scatter, so the result is the same in every run."""

    @staticmethod
    def forward(ctx, dense: Tensor, rows: SparseRows, transpose: SparseRows) -> Tensor:
        ctx.rows, ctx.transpose = rows, transpose
        return _times(rows, dense)

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        return _SparseProduct.apply(grad_outputs[0], ctx.transpose, ctx.rows), None, None


class FixedSparse(nn.Module):
    """A constant (R, S) matrix that follows its module's device but stays out of its state_dict."""

    def __init__(
        self,
        row: Int[np.ndarray, " P"],
        column: Int[np.ndarray, " P"],
        value: Float[np.ndarray, " P"],
        shape: tuple[int, int],
    ):
        super().__init__()
        self._hold("rows", sparse_rows(row, column, value, shape[0]))
        self._hold("transpose", sparse_rows(column, row, value, shape[1]))

    def _hold(self, name: str, rows: SparseRows) -> None:
        for part, tensor in rows._asdict().items():
            self.register_buffer(f"{name}_{part}", tensor, persistent=False)

    def _held(self, name: str) -> SparseRows:
        return SparseRows(*(self.get_buffer(f"{name}_{part}") for part in SparseRows._fields))

    def forward(self, dense: Float[Tensor, "B S O"]) -> Float[Tensor, "B R O"]:
        """The product with each of the dense matrices, in 32 bits at least: sums deserve them under autocast, too."""
        if dense.dtype in (torch.float16, torch.bfloat16):
            dense = dense.float()
        return _SparseProduct.apply(dense, self._held("rows"), self._held("transpose"))
