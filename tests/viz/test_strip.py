import re
from html.parser import HTMLParser

import pytest

from llama_core import viz
from llama_core.errors import InputError


def cells(strip) -> list[tuple[str, bool]]:
    """The text of each cell, and whether it is marked as the current step."""
    found = re.findall(r"<td([^>]*)>(.*?)</td>", strip.html)
    return [(re.sub("<br>", " ", text), 'aria-current="step"' in attributes) for attributes, text in found]


def test_the_strip_holds_all_twelve_checkpoints_in_order():
    numbers = [re.sub("<[^>]*>|[▸◂ ]", "", text.split("<br>")[0]) for text, _ in cells(viz.checkpoint_strip("10"))]
    assert [re.match(r"1B|\d+", text)[0] for text in numbers] == "0 1 1B 2 3 4 5 6 7 8 9 10".split()


def test_what_comes_after_the_checkpoints_is_marked_behind_them_and_shown_nowhere_else():
    strip = viz.checkpoint_strip("11")
    assert repr(strip).endswith("9 · 10 · [11 Port your own]")
    assert [here for _, here in cells(strip)] == [False] * 12 + [True]
    assert 'aria-label="After checkpoints 0 to 10: Port your own"' in strip.html


def test_only_the_current_one_is_marked():
    marked = [re.sub("<[^>]*>", "", text) for text, here in cells(viz.checkpoint_strip("1B")) if here]
    assert marked == ["▸ 1B ◂ RoPE"]


def test_links_lead_to_the_others_and_are_escaped():
    strip = viz.checkpoint_strip("3", {"2": 'a"b.ipynb', "3": "here.ipynb"})
    assert re.findall(r'href="([^"]*)"', strip.html) == ["a&quot;b.ipynb"]


def test_the_html_closes_what_it_opens_and_loads_nothing():
    opened = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attributes):
            assert tag in {"div", "table", "tr", "td", "br", "strong", "a"}
            assert "src" not in dict(attributes)
            opened.extend([tag] * (tag != "br"))

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Tags().feed(viz.checkpoint_strip("0", {"1": "x"}).html)
    assert opened == []


def test_a_terminal_shows_the_strip_as_text():
    assert "2 · [3 Attention] · 4" in repr(viz.checkpoint_strip("3"))


@pytest.mark.parametrize("arguments", [("12",), ("3", {"x": "y"})])
def test_an_unknown_checkpoint_is_refused(arguments):
    with pytest.raises(InputError, match="there is no checkpoint"):
        viz.checkpoint_strip(*arguments)
