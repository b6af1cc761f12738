"""tools/api_pages.py: every public name with what it says of itself, on pages that need nothing from elsewhere."""

import re
from html import unescape

import pytest
from notebook_files import tool
from test_pages import Elements, broken_links

import llama_core

api_pages = tool("api_pages")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("html") / "api"
    api_pages.write_api_pages(folder)
    return folder


@pytest.fixture(scope="module")
def pages(folder) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in folder.rglob("*.html")}


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub("<[^>]+>", "", html)).split())


def test_every_exported_name_has_its_place_and_its_docstring(pages):
    page = pages["llama_core.html"]
    for name in llama_core.__all__:
        if callable(member := getattr(llama_core, name)):
            assert f'id="{name}"' in page, name
            first = " ".join(member.__doc__.split("\n")[0].replace("`", "").split())
            assert first in text_of(page), name


def test_arguments_shapes_and_errors_are_shown(pages):
    page = text_of(pages["llama_core/cache.html"])
    assert "batch_size: B. max_length: T, the capacity in positions" in page
    assert "Memory: 2 · L · B · K · T · D values." in page
    assert "Raises CacheError, before anything is computed" in page
    assert "x: Float[Tensor, '*batch E']" in text_of(pages["llama_core/layers/rms_norm.html"])


def test_nothing_that_pytorch_says_of_its_base_class_is_shown_as_ours(pages):
    for address, page in pages.items():
        assert "Should be overridden by all subclasses" not in page, address
        assert "Initialize internal Module state" not in page, address


def test_nothing_that_python_says_of_a_named_tuple_is_shown_as_ours(pages):
    for address, page in pages.items():
        assert "Alias for field number" not in page, address
        assert "Create new instance of" not in page, address
    assert 'id="LayerCache.slots"' in pages["llama_core/layers/attention.html"]  # the field itself stays


def test_types_are_shown_by_their_names(pages):
    for address, page in pages.items():
        assert "ForwardRef" not in text_of(page), address
    assert "LayerCache( keys: Tensor, values: Tensor, slots: Tensor)" in text_of(
        pages["llama_core/layers/attention.html"]
    )


def test_the_pages_ask_for_nothing_from_elsewhere_and_run_no_script(pages):
    for address, page in pages.items():
        elements = Elements(page)
        assert not elements.named("script", "link", "iframe"), address
        assert not re.findall(r"@import|url\(['\"]?(?:https?:)?//", page), address
        asked_for = [attributes.get("src", "") for attributes in elements.named("img", "source")]
        linked = [attributes.get("href", "") for attributes in elements.named("a")]
        assert not [found for found in asked_for + linked if re.match(r"(https?:)?//", found)], address


def test_every_link_between_pages_arrives(pages):
    assert broken_links(pages, beside=("../index.html",)) == []  # the workbook's
