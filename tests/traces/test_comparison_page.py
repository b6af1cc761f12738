"""The page of a comparison: one file that needs nothing else, with the ladder, the map, the cause and every tensor."""

import re
from html.parser import HTMLParser

import pytest
from small_traces import golden, model
from traced_plain import planted

from llama_core.checkpoints.steps import NO_CHANGES
from llama_core.cli import main
from llama_core.names import activation_names
from llama_core.trace_report.page import _cause
from llama_core.traces.cause import Cause
from llama_core.traces.hypothesis import made
from llama_core.traces.verdict import Comparison


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    right = golden(place / "golden", noise=("float32",))
    planted("attention-no-scale", 1).trace(model(), right.calls, place / "mine")
    model().save_pretrained(place / "model")
    return place


def arguments(folder, *more):
    return ["compare", str(folder / "golden"), str(folder / "mine"), *more]


@pytest.fixture(scope="module")
def page(folder):
    more = ["--model", str(folder / "model"), "--impact", "--html", str(folder / "report.html")]
    assert main(arguments(folder, *more)) == 1
    return (folder / "report.html").read_text(encoding="utf-8")


class Seen(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.addresses, self.alternatives, self.tags = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.add(tag)
        self.addresses += [found[key] for key in ("src", "href", "data") if key in found]
        if tag == "img":
            self.alternatives.append(found.get("alt", ""))


def test_nothing_comes_from_elsewhere(page):
    seen = Seen(page)
    assert seen.tags.isdisjoint({"script", "link", "iframe", "object", "embed"})
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in seen.addresses)
    assert "@import" not in page and not re.search(r"url\((?!data:)", page)


def test_it_has_the_ladder_and_the_maps_with_words_for_those_who_do_not_see_them(page):
    ladder, heads, layer = Seen(page).alternatives
    assert "first wrong tensor is layers.1.scores" in ladder and "noise" in ladder
    assert "heads down and tokens across" in heads and "head " in heads
    assert "scores" in layer


def test_it_says_what_the_comparison_found(page):
    text = re.sub(r"<[^>]+>", "", page)
    assert "NOT RIGHT" in text and "layers.1.scores in call 0" in text
    assert "attention-no-scale" in text and "Divide q · k by √D" in text
    assert re.search(r"explained.*layers\.1\.scores\s*100\.0%", text, re.DOTALL)


def test_every_tensor_has_its_row(page):
    assert all(page.count(f"<td><code>{name}</code></td>") >= 1 for name in activation_names(3))


def test_a_light_and_a_dark_page_are_one_file(page):
    assert "color-scheme: light dark" in page and "prefers-color-scheme: dark" in page


def test_an_earlier_page_is_replaced_and_anything_else_is_not(folder, page, capsys):
    assert main(arguments(folder, "--html", str(folder / "report.html"))) == 1
    other = (folder / "report.html").read_text(encoding="utf-8")
    assert other != page and "cumulative only" in other
    (folder / "thesis.html").write_text("<p>years of work")
    capsys.readouterr()
    problems = {"thesis.html": "no page of a comparison", "no/page.html": "does not exist", ".": "is a folder"}
    for place, problem in problems.items():
        assert main(arguments(folder, "--html", str(folder / place))) == 2
        assert problem in capsys.readouterr().err
    assert (folder / "thesis.html").read_text() == "<p>years of work"


def test_no_row_of_the_cause_is_empty():
    """What is tried besides the catalogue has no story of its own."""
    hypothesis = made("weights-of-layer-3", "7", "this layer has the weights of layer 3", "Load it.", NO_CHANGES)
    cause = Cause((hypothesis,), (), "matches", "everywhere")
    (table,) = _cause(Comparison("golden", "mine", "float32", (), (), "logits", 0, cause, False, True))
    assert all(value for _, value in table.rows)
