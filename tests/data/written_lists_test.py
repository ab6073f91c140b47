"""Lists written as text: which are read, which are refused, and what stays a caption."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpi_jax.data.formats.written_lists import MAX_LENGTH, captions_in

WORDS = st.text(max_size=12).filter(lambda text: not text.strip("\ufeff'\" \n\t").startswith(("[", "(", "{")))


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=5), st.sampled_from([repr, json.dumps, str, lambda x: repr(tuple(x))]))
def test_whatever_python_or_json_writes_is_read_back(captions, write):
    assert captions_in(write(captions)) == captions
    assert captions_in(f"  {json.dumps([write(captions), 'the last'])}\n") == [*captions, "the last"]
    assert captions_in(json.dumps(write(captions))) == captions_in(repr(write(captions))) == captions


@pytest.mark.parametrize(
    "text, captions",
    [
        ("['a', 'b']", ["a", "b"]),
        ("[u'a', u\"b's\",]", ["a", "b's"]),  # as Python 2 wrote it
        ('["a", "b"]', ["a", "b"]),
        ('[\n "a",\n "b"\n]', ["a", "b"]),
        ("('a',)", ["a"]),
        ('["[\\"a\\", \\"b\\"]", "c"]', ["a", "b", "c"]),
        ("[]", []),
        ("\ufeff['a', 'b']", ["a", "b"]),
        (" \ufeff\n['a']", ["a"]),
        ("\"['a', 'b']\"", ["a", "b"]),  # written as text twice
        ('\'["a", "b"]\'', ["a", "b"]),
        ('"[\\"a\\", \\"b\\"]"', ["a", "b"]),
        (json.dumps(repr('["a"]')), ["a"]),  # thrice
        ("\"('a',)\"", ["a"]),
        ("[ ]", []),
    ],
)
def test_lists_that_are_read(text, captions):
    assert captions_in(text) == captions


@pytest.mark.parametrize(
    "text",
    [
        "['a' 'b']",  # as NumPy writes it: Python would read 'ab'
        "['a'\n 'b']",
        "['a', None]",
        "['a', nan]",
        "[nan]",
        "[1, 2]",
        '["a", null]',
        "[['a'], ['b']]",
        '[["a"], ["b"]]',
        '{"raw": "a"}',
        "[{'raw': 'a'}]",
        "{'a', 'b'}",
        "['a', 'b",
        '["a',
        "['a', b]",
        "['a', __import__('os').getcwd()]",
        "['a' + 'b']",
        "['a'] * 2, 'b']",
        "['\\U11111111']",
        "['" + "a" * MAX_LENGTH + "']",
        '["' + '", "' * MAX_LENGTH + '"]',
        "['" + "\\" * 100_001 + "']",
        "[np.str_('a'), np.str_('b')]",
        "[np.str_('it\\'s a'), np.str_('b",
        "[b'a', b'b']",
        "[r'a', 'b']",
        "[Rb'a', 'b']",
        "array(['a', 'b'], dtype=object)",
        "np.array(['a', 'b'",
        "array([], dtype=object)",
        "list(['a', 'b'])",
        "tuple(('a', 'b'))",
        "pd.Series([nan, 'a'])",
        "frozenset({'a', 'b'})",
        "<StringArray>\n['a', 'b']\nLength: 2, dtype: string",
        "('a dog' 'a cat')",
        "('a dog'\n 'a cat')",
        "('a dog', nan)",
        "('a dog', None)",
        "('a dog', 0.98)",
        "('a dog', 'a cat",
        "('a dog',",
        "('a dog",
        "(nan, 'a dog')",
        "(b'a dog', b'a cat')",
        "[pd.NA, 'a']",
        "[<NA>, 'a']",
        "[np.nan, 'a']",
        "[None 'a']",
        "['a' <NA>]",
        "[1, 'a']",
        "{'a', 'b",
        '{"raw": "a',
        "\ufeff['a', nan]",
        "\"['a', nan]\"",
        "\"['a', 'b",
        '"[\\"a\\", \\"b',
        "\"['a' 'b']\"",
    ],
    ids=lambda text: text[:20],
)
def test_lists_that_are_refused(text):
    with pytest.raises(ValueError, match="list"):
        captions_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a cat",
        "[a sketch] of a dog",
        "[a sketch of a dog]",
        '["Stop" sign] on a street',
        '("Stop") sign',
        "('a' is for apple)",
        "(a dog)",
        "[1] a dog",
        "[...]",
        "{a dog}",
        "a list: ['a', 'b']",
        '"a quote" he said',
        '"[a sketch] of a dog"',
        "'a'",
        '"a"',
        "\ufeffa cat",
        "'",
        '"',
        "'tis the season",
        "dog(s) and a cat",
        "f(x) on a blackboard",
        "dog (['a'])",
        "a (b'c') d",
        "(1, 2) on a map",
        "(a 'quoted' dog)",
        "('Stop' sign)",
        "<3",
        "<a> [b]",
        "array of dogs",
        "{'Stop' sign} on a street",
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        "[" + "9" * 10_000 + "]",
    ],
    ids=lambda text: text[:20],
)
def test_what_stays_a_caption(text):
    assert captions_in(text) == [text]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="[](){}'\",\\ anu0N\n", max_size=40))
def test_any_brackets_and_quotes_are_a_caption_captions_or_refused(text):
    try:
        found = captions_in(text)
    except ValueError:
        return
    assert all(isinstance(caption, str) for caption in found)
    assert found == [text] or text.strip()[0] in "[('\""
