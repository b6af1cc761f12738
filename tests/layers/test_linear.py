"""What a compiled graph computes in place of one token's product, run uncompiled and held to float64."""

import pytest
import torch

from llama_core.layers.linear import _LARGE, _product_of_one_token

#: Below the size from which a matrix is read in parts; above it; above it with rows left over, or fewer than parts.
SHAPES = [(24, 16), (_LARGE // 256, 256), (_LARGE // 256 + 3, 256), (3, _LARGE)]


@pytest.mark.parametrize("rows, columns", SHAPES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2**-8)])
def test_one_tokens_product_is_the_matrix_times_it(rows, columns, dtype, tolerance):
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=draw).mul(columns**-0.5).to(dtype)
    x = torch.randn(1, 1, columns, generator=draw).to(dtype)
    y = _product_of_one_token(x, weight)
    expected = weight.double() @ x.double().flatten()
    assert y.shape == (1, 1, rows) and y.dtype == dtype
    assert (y.double().flatten() - expected).abs().max() <= tolerance * expected.abs().max()
