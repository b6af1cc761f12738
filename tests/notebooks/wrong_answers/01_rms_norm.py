"""Wrong answers to the exercises of 01_rms_norm: exercise, source, the mistake that the check must name."""


def _function(formula: str) -> str:
    return f"""
def my_rms_norm(inputs, weights, config):
    x, weight = inputs["layer_input"], weights["input_layernorm.weight"]
    eps = config.rms_norm_eps
    return {{"attention_norm": {formula}}}
"""


def _module(forward: str) -> str:
    return f"""
class MyRMSNorm(torch.nn.Module):
    def __init__(self, hidden_size, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(hidden_size))

    def forward(self, x):
        return {forward}
"""


WRONG = [
    ("01-rms-norm", _function("x / np.sqrt(np.sum(x * x, -1, keepdims=True) + eps) * weight"), "norm-sum-for-mean"),
    ("01-rms-norm", _function("x / np.sqrt(np.mean(x * x, 1, keepdims=True) + eps) * weight"), "norm-over-positions"),
    ("01-rms-norm", _function("x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps)"), "norm-weight-ignored"),
    (
        "01-module",
        _module("x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * (1 + self.weight)"),
        "norm-one-plus-weight",
    ),
    (
        "01-module",
        _module("torch.nn.functional.layer_norm(x, x.shape[-1:], self.weight, None, self.eps)"),
        "norm-mean-subtracted",
    ),
    (
        "01-module",
        _module("x / (x.square().mean(-1, keepdim=True).sqrt() + self.eps) * self.weight"),
        "norm-eps-outside-root",
    ),
]
