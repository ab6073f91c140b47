"""Text of others as it may stand in a table, a page or a picture."""

import pytest

from lpi_jax.terminal.plain_text import plain, shortened, width


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red flag", "a red flag"),
        (" two\n lines\tand a tab ", "two lines and a tab"),
        ("\x1b[31mred\x00", "�[31mred�"),
        ("half \ud800", "half �"),
        ("turned \u202eround", "turned �round"),
        ("动物 🦊 عربى é", "动物 🦊 عربى é"),
    ],
)
def test_what_cannot_be_written_or_disorders_its_neighbours_is_replaced(text, expected):
    assert plain(text) == expected
    assert plain(text).encode().decode() == expected


@pytest.mark.parametrize("most", [4, 5, 10, 20])
@pytest.mark.parametrize("text", ["a" * 40, "动物和植物的图片集合以及更多的图片", "many words of a task"])
def test_a_long_text_keeps_its_beginning_and_its_end(text, most):
    found = shortened(text, most)
    if width(text) <= most:
        assert found == text
        return
    assert width(found) <= most
    head, ellipsis, tail = found.partition("…")
    assert ellipsis
    assert text.startswith(head)
    assert text.endswith(tail)
    assert width(found) >= most - 3  # two columns may be left over on either side
