"""``llama-core check --report``: pages that say what was measured, and a folder in which nothing else is lost."""

import json
import re
from html import unescape

import pytest

from llama_core.checkpoints import check
from llama_core.checkpoints.mistakes import mistakes_for
from llama_core.checkpoints.prove import prove
from llama_core.checkpoints.specification import checkpoint
from llama_core.cli import main
from llama_core.gate_report import facts
from llama_core.layers import Block
from llama_core.report import Page

FEED_FORWARD = """
import numpy as np

def silu(z):
    return z / (1 + np.exp(-z))

def right(inputs, weights, config, activation=silu):
    x = inputs["ffn_norm"].astype(np.float64)
    part = lambda x, name: x @ weights[f"mlp.{name}.weight"].T + weights.get(f"mlp.{name}.bias", 0)
    return part(activation(part(x, "gate_proj")) * part(x, "up_proj"), "down_proj")

def relu(inputs, weights, config):
    return right(inputs, weights, config, lambda z: np.maximum(z, 0))

def second_position(inputs, weights, config):
    y = right(inputs, weights, config)
    y[:, 1] *= 1.5
    return y

def broken(inputs, weights, config):
    raise RuntimeError("<script> | `x`")

count = 0
def restless(inputs, weights, config):
    global count
    count += 1
    return right(inputs, weights, config) * (1 + count * 1e-12)
"""


@pytest.fixture
def report(tmp_path, capsys):
    """Writes a report on checkpoint 5; returns the exit status, what was printed, and the folder."""
    (tmp_path / "ffn.py").write_text(FEED_FORWARD)
    folder = tmp_path / "report"

    def run(implementation=None, *more):
        chosen = ["--implementation", f"{tmp_path / 'ffn.py'}:{implementation}"] if implementation else []
        status = main(["check", "5", "--fast", "--report", str(folder), *chosen, *more])
        return status, capsys.readouterr(), folder

    return run


def page(folder):
    return (folder / "05_feed_forward.html").read_text()


def rows(html, section):
    """The cells of every table row of a section, tags removed."""
    part = html.split(f'<h2 id="{section}">')[1].split("<h2")[0]
    found = re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL)
    return [[unescape(re.sub("<.*?>", "", c)) for c in re.findall(r"<td.*?>(.*?)</td>", row)] for row in found]


def test_every_number_is_that_of_the_run(report):
    _, printed, folder = report(None, "--json")
    checks = json.loads(printed.out)["checkpoints"][0]["checks"]
    shown = [row[:4] for row in rows(page(folder), "validation-results") if row]
    assert shown == [[c["case"], c["output"], f"{c['error']:.2g}", f"{c['tolerance']:.2g}"] for c in checks]


def test_the_mistakes_are_those_that_were_tried(report):
    _, _, folder = report()
    found = rows(page(folder), "the-mistakes-it-catches")[1:]
    expected = {c.mistake.id: f"{c.error:.2g}" for c in prove("float32", ["5"]).catches}
    assert {row[0]: row[3] for row in found} == expected
    assert len(expected) == len(mistakes_for("5")) and {row[6] for row in found} == {"caught"}


def test_a_mistake_is_named_on_its_page_and_on_the_index(report):
    status, _, folder = report("relu")
    assert status == 1
    for name in ("05_feed_forward", "index"):
        html = (folder / f"{name}.html").read_text()
        assert '<strong class="bad">FAIL</strong>' in html and "llama-core explain ffn-relu" in html
        assert "llama-core explain ffn-relu" in (folder / f"{name}.md").read_text()


def test_the_error_is_shown_where_it_is(report):
    _, _, folder = report("second_position")
    pictures = re.findall(r'alt="(.*?)"', page(folder), re.DOTALL)
    assert any("map of the absolute error," in words and "“1”" in words for words in pictures)
    assert "confined to query 1" in page(folder)


def test_a_right_implementation_has_no_cause(report):
    status, _, folder = report("right")
    assert status == 0
    assert "Cause" not in page(folder) and '<strong class="bad">' not in page(folder)


def test_what_an_implementation_says_is_text(report):
    status, _, folder = report("broken")
    assert status == 1
    assert "<script>" not in page(folder) and "&lt;script&gt;" in page(folder)
    tables = re.findall(r"(?:^\|.*\n)+", (folder / "05_feed_forward.md").read_text(), re.MULTILINE)
    columns = [{len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()} for table in tables]
    assert len(tables) > 4 and all(len(counts) == 1 for counts in columns)


def test_other_bits_in_another_run_are_told(report):
    assert "the same bits" in page(report("right")[2]) and "not the same bits" not in page(report("right")[2])
    status, _, folder = report("restless")
    assert status == 0 and "not the same bits</strong> in <code>ffn_output</code>" in page(folder)


def test_every_link_and_figure_leads_somewhere(report):
    _, _, folder = report("relu")
    for path in folder.glob("*.*"):
        text = path.read_text()
        found = re.findall(r'href="([^"]+)"|\]\(([^)]+)\)' if path.suffix == ".html" else r"()\]\(([^)]+)\)", text)
        for target in {a or b for a, b in found} - {""}:
            assert target.startswith("https://") or (folder / target).is_file(), (path.name, target)
    figures = list((folder / "figures").iterdir())
    assert len(figures) == 2 and all(f.read_bytes().startswith(b"\x89PNG") for f in figures)


def test_an_earlier_report_is_replaced_whole(report, tmp_path):
    _, _, folder = report()
    assert main(["check", "4", "--fast", "--report", str(folder)]) == 0
    assert sorted(p.name for p in folder.glob("*.html")) == ["04_output_projection.html", "index.html"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ffn.py", "report"]


@pytest.mark.parametrize("other", ["notes.txt", "figures/holiday.png", "index.html", "05_feed_forward.html"])
def test_a_folder_with_anything_else_is_refused_before_anything_is_measured(report, tmp_path, other):
    path = tmp_path / "report" / other
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    status, printed, folder = report()
    assert status == 2 and printed.out == "" and "other things than a report" in printed.err
    assert path.read_text() == "mine" and len([p for p in folder.rglob("*") if p.is_file()]) == 1


def test_a_report_that_cannot_be_finished_leaves_the_old_one(report, monkeypatch, tmp_path):
    _, _, folder = report()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Page, "markdown", full)
    status, printed, _ = report("relu")
    assert status == 2 and "No space left" in printed.err
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ffn.py", "report"]


@pytest.mark.parametrize("other", [["--prove"], ["--interface"], ["--export", "cases"]])
def test_a_report_of_nothing_judged_is_refused(report, other):
    status, printed, folder = report(None, *other)
    assert status == 2 and other[0] in printed.err and not folder.exists()


def test_a_dash_prints_the_pages(capsys):
    assert main(["check", "5", "--fast", "--report", "-"]) == 0
    out = capsys.readouterr().out
    for heading in ("Test results", "Validation results", "The mistakes it catches", "Known limits"):
        assert f"\n{heading}\n" in out
    assert "[figure] A list of checks" in out and "\x1b" not in out


def test_integration_points_are_those_of_the_dataflow():
    assert [(name, giver) for name, _, giver in facts.read_from(checkpoint("3"))] == [
        ("q_rotated", "1B"),
        ("cache_k", "8"),
        ("cache_v", "8"),
        ("position_ids", "8"),
        ("key_positions", "8"),
    ]
    assert facts.read_from(checkpoint("1")) == [("layer_input", "B S E", "6")]
    assert facts.read_by(checkpoint("3"))[0][2] == ["attention_output (4)"]
    assert facts.read_by(checkpoint("1"))[0][2] == ["q (2)", "k (2)", "v (2)"]


def test_the_sizes_are_those_of_the_published_models():
    header, models = facts.published_sizes("3")
    found = {row[0]: dict(zip(header, row, strict=True)) for row in models}
    assert found["llama-2-7b"]["√D"] == "11.313708"  # the seed's 11.3137
    assert (found["llama-2-70b"]["H"], found["llama-2-70b"]["K"]) == ("64", "8")


def test_the_errors_of_a_wrong_case_are_in_the_order_of_the_dataflow():
    spec = checkpoint("6")
    wrong = check("6", LostBlock, cases=spec.small_cases[:1]).wrong_case
    assert list(wrong.errors)[:3] == ["attention_norm", "q", "k"] and list(wrong.errors)[-1] == "output"
    assert wrong.errors["output"].max() > 0.1 > 1e-4 > wrong.errors["ffn_output"].max()


class LostBlock(Block):
    def forward(self, x, rope, cos_sin, mask, cache, tap):
        return tap("output", 0 * super().forward(x, rope, cos_sin, mask, cache, tap))


def test_every_step_of_the_dataflow_says_what_it_computes():
    assert all(facts.computes(step) for step in facts.MODEL_STEPS)
