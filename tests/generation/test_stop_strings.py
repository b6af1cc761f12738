"""Stop strings: where a text ends, whatever pieces it comes in."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from small_models import no_shape_checks

from llama_core.batch import generate_batch
from llama_core.cli import main
from llama_core.errors import GenerationError
from llama_core.model import Llama
from llama_core.sampling import SamplingParameters
from llama_core.text_stream import StopStrings, TextStream
from llama_core.tokenizer import Tokenizer


def whole(text: str, strings: list[str]) -> tuple[str, str | None]:
    """The definition, character by character: stop as soon as the text so far ends with one; of several the longest."""
    for end in range(1, len(text) + 1):
        found = [s for s in strings if text[:end].endswith(s)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(
    text=st.text("abc", max_size=30),
    strings=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4),
    cuts=st.lists(st.integers(0, 30), max_size=10),
)
@example(text="abc", strings=["abc", "b"], cuts=[])  # "b" is complete first
@example(text="cabc", strings=["bc", "abc"], cuts=[])  # both are complete at once
def test_any_pieces_give_what_the_definition_gives(text, strings, cuts):
    stop = StopStrings(strings)
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    shown = [stop.push(text[a:b]) for a, b in zip(borders, borders[1:], strict=False)]
    shown.append(stop.flush())
    assert ("".join(shown), stop.found) == whole(text, strings)


def test_only_what_may_become_a_stop_string_is_held_back():
    stop = StopStrings(["END", "\n\n"])
    assert [stop.push(piece) for piece in ("a", "E", "N", "x", "\n", "b", "EE", "ND c")] == [
        "a", "", "", "ENx", "", "\nb", "E", "",
    ]  # fmt: skip
    assert stop.found == "END"
    assert stop.push("more") == "" and stop.flush() == ""


@pytest.mark.parametrize("strings", ["", [""], ["a", ""], 5, None, [5], [b"a"]])
def test_what_is_no_string_to_stop_at_is_refused(strings):
    with no_shape_checks(), pytest.raises(GenerationError) as error:
        StopStrings(strings)
    assert error.value.key == "stop"


@pytest.fixture(scope="module")
def folder(real_models):
    return real_models / "stories260K"


@pytest.fixture(scope="module")
def story(folder):
    return json.loads((folder / "expected.json").read_text())[1]


def test_the_command_stops_at_a_string_of_the_published_text(folder, story, capsys):
    stop = story["text"][150:157]  # lies across tokens
    status = main(
        ["generate", "--model", str(folder), "--prompt", story["prompt"], "--temperature", "0", "--stop", stop]
    )
    assert status == 0
    new = story["text"][len(story["prompt"]) :]
    assert capsys.readouterr().out == story["prompt"] + new[: new.index(stop)] + "\n"


def test_a_stop_string_in_the_prompt_stops_nothing(folder, story):
    tokenizer = Tokenizer.from_pretrained(folder)
    stream = TextStream(tokenizer, story["prompt_ids"], story["prompt"])
    shown = "".join(stream.push(token) for token in story["token_ids"][len(story["prompt_ids"]) :])
    assert stream.stopped is None
    assert story["text"].startswith(story["prompt"] + shown)


def test_rows_of_a_batch_stop_each_at_its_own_place(folder, story):
    model, tokenizer = Llama.from_pretrained(folder, dtype="float32"), Tokenizer.from_pretrained(folder)
    texts = ["Once upon a time", story["prompt"], "One day, a cat"]
    prompts = [tokenizer.encode(text, bos=True) for text in texts]
    with no_shape_checks():
        plain = generate_batch(model, prompts, 80, SamplingParameters(0), tokenizer=tokenizer, eos_ids=())
        found = generate_batch(model, prompts, 80, SamplingParameters(0), tokenizer=tokenizer, eos_ids=(), stop=[". "])
    for before, after in zip(plain, found, strict=True):
        assert after.text == whole(before.text, [". "])[0]
        assert after.reason == ("stop" if ". " in before.text else "length")
        assert before.ids[: len(after.ids)] == after.ids
    assert len({len(after.ids) for after in found}) > 1
