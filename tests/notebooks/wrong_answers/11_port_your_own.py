"""Wrong answers to the exercises of 11_port_your_own: exercise, source, the mistake that the check must name."""

_ROTATE = '''
my_rotate = r"""
static void rotate(float *x, int heads, int S) {{
    for (int s = 0; s < S; s++)
        for (int h = 0; h < heads; h++)
            for (int i = 0; i < D / 2; i++) {{
                double angle = {angle};
                float *head = x + (s * heads + h) * D, a = head[{first}], b = head[{second}];
                head[{first}] = a * cos(angle) - b * sin(angle);
                head[{second}] = b * cos(angle) + a * sin(angle);
            }}
}}
"""
'''
_RIGHT = {"angle": "position[length + s] * pow(theta, -2.0 * i / D)", "first": "i", "second": "i + D / 2"}
_SEES = '''
my_sees = r"""
static int sees(int query, int t) {{
    return {visible};
}}
"""
'''
_MYSTERY = """
from llama_core.traces.mystery import ELIGIBLE, solution
hidden = solution("friday")
answer = {answer}
"""


def _rotate(**wrong: str) -> str:
    return _ROTATE.format(**_RIGHT | wrong)


WRONG = [
    ("11-rotate", _rotate(first="2 * i", second="2 * i + 1"), "rope-pairs-swapped"),
    ("11-rotate", _rotate(angle="-position[length + s] * pow(theta, -2.0 * i / D)"), "rope-sign-flipped"),
    ("11-rotate", _rotate(angle="position[length + s] * pow(theta, -1.0 * i / D)"), "rope-exponent-halved"),
    ("11-sees", _SEES.format(visible="t <= query - length"), "attention-mask-top-left"),
    ("11-sees", _SEES.format(visible="position[t] <= position[query] + 1"), "attention-mask-shows-one-future-token"),
    (
        "11-mystery",
        _MYSTERY.format(answer='f"{hidden.layer}:{next(m.id for m in ELIGIBLE if m.id != hidden.mistake.id)}"'),
        "wrong-mistake",
    ),
    ("11-mystery", _MYSTERY.format(answer='f"{hidden.layer % 3 + 1}:{hidden.mistake.id}"'), "wrong-layer"),
]
