"""Records of a list or of lines: what is read, piece by piece, and what is told of what is broken."""

import json
import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lpi_jax.data.examples import BadExample
from lpi_jax.data.formats import json_records
from lpi_jax.data.formats.json_records import MAX_RECORD, records
from lpi_jax.errors import UserError


def written(folder, content):
    path = folder / "r.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def read(folder, content):
    return list(records(written(folder, content), lambda _: None))


GOOD = [{"a": 1}, {"b": [2, {"c": "]},["}]}, {"d": "é\n"}]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_and_lines_hold_the_same_records(tmp_path, indent):
    as_list = "\ufeff \n" + json.dumps(GOOD, indent=indent) + " \r\n"
    as_lines = "\ufeff" + "\r\n\n".join(map(json.dumps, GOOD))
    assert [record for _, record in read(tmp_path, as_list)] == GOOD
    assert [record for _, record in read(tmp_path, as_lines)] == GOOD
    assert [place for place, _ in read(tmp_path, as_list)] == ["record 1", "record 2", "record 3"]
    assert [place for place, _ in read(tmp_path, as_lines)] == ["line 1", "line 3", "line 5"]


def test_the_whole_content_is_seen_however_it_is_read(tmp_path):
    for content in (json.dumps(GOOD), "\n".join(map(json.dumps, GOOD))):
        seen = []
        list(records(written(tmp_path, content), seen.append))
        assert b"".join(seen).decode() == content


def test_pieces_end_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "MAX_RECORD", 60)
    many = [{"n": number, "text": "x" * (number % 23)} for number in range(300)]
    for gap in ("", " ", " " * 50, "\n" * 150):
        content = "[" + f"{gap},{gap}".join(map(json.dumps, many)) + f"{gap}]"
        assert [record for _, record in read(tmp_path, content)] == many
    with pytest.raises(UserError, match=r"r.json, line 3, column 12: this is not JSON \(Expecting value\)"):
        read(tmp_path, "[" + json.dumps(many[20]) + ",\n" + json.dumps(many[21]) + ",\n" + '  {"wrong":}]')


def test_a_record_longer_than_the_limit_ends_a_list(tmp_path):
    fitting = {"a": "x" * (MAX_RECORD - len('{"a": ""}'))}
    assert read(tmp_path, json.dumps([fitting, fitting])) == [("record 1", fitting), ("record 2", fitting)]
    for longer in ({"a": fitting["a"] + "x"}, {"a": "x" * 3 * MAX_RECORD}, {"a": [0] * MAX_RECORD}):
        with pytest.raises(UserError, match=r"r\.json, record 2: the record has more than 1000000 characters"):
            read(tmp_path, json.dumps([{}, longer, {}]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        (" \n ", "^$"),
        ("[]", "the list is empty; expected at least one record"),
        ('[{"a": 1}', "line 1, column 10: this is not JSON (Expecting ',' or ']' behind record 1)"),
        ('[{"a": 1} {}]', "line 1, column 11: this is not JSON (Expecting ',' or ']' behind record 1)"),
        ('[{"a": 1},]', "line 1, column 11: this is not JSON (Expecting value)"),
        ('[{},\n {"a" 1}]', "line 2, column 7: this is not JSON (Expecting ':' delimiter)"),
        ('[{},\n {"a', "line 2, column 3: this is not JSON (Unterminated string"),
        ("[{}] []", "line 1, column 6: this is not JSON (Extra data behind the list)"),
        ("[" * 100_000, "record 1: this is JSON of an absurd kind"),
        ('[{"a": ' + "9" * 10_000 + "}]", "record 1: this is JSON of an absurd kind"),
        (b'[{"a": "\xff"}]', "the file is not UTF-8"),
    ],
)
def test_what_ends_a_file_is_one_sentence(tmp_path, content, message):
    if message == "^$":
        assert read(tmp_path, content) == []
        return
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        read(tmp_path, content)
    assert "r.json" in str(raised.value) and not isinstance(raised.value, BadExample)


@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        ("[1]", "not an object", "this is a list; expected an object"),
        ("null", "not an object", "this is null; expected an object"),
        ('{"a": NaN}', "not JSON", "this holds NaN, which is no JSON"),
        ('{"a": [{"b": -Infinity}]}', "not JSON", "this holds -Infinity, which is no JSON"),
    ],
)
def test_what_is_no_record_is_a_bad_example_and_reading_goes_on(tmp_path, bad, kind, message):
    for content, place in ((f'[{{"a": 1}}, {bad}, {{}}]', "record 2"), (f'{{"a": 1}}\n{bad}\n{{}}', "line 2")):
        (_, first), (where, error), (_, last) = read(tmp_path, content)
        assert first == {"a": 1} and last == {} and where == place
        assert isinstance(error, BadExample) and error.kind == kind
        assert str(error) == f"{tmp_path}/r.json, {place}: {message}"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('{"a": 1', "not JSON"),
        ('{"a": 1} {}', "not JSON"),
        ("{" * 100_000, "not JSON"),
        (b'{"\xff": 1}', "not UTF-8"),
        ('{"a": "' + "x" * 1_000_000 + '"}', "line too long"),
    ],
)
def test_a_broken_line_is_a_bad_example(tmp_path, line, kind):
    line = line if isinstance(line, bytes) else line.encode()
    _, (place, error), (_, last) = read(tmp_path, b'{"a": 1}\n' + line + b'\n{"b": 2}')
    assert place == "line 2" and error.kind == kind and last == {"b": 2}


def test_no_file_and_a_folder(tmp_path):
    for path, message in ((tmp_path / "no.json", "there is no such file"), (tmp_path, "this is a folder")):
        with pytest.raises(UserError, match=message):
            list(records(str(path), lambda _: None))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@example(data=None)
def test_damage_ends_in_a_user_error_or_in_bad_examples(tmp_path, data):
    text = bytearray(json.dumps(GOOD * 3, indent=1).encode())
    for _ in range(data.draw(st.integers(1, 4)) if data else 0):
        start = data.draw(st.integers(0, len(text) - 1))
        text[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=5))
    try:
        found = read(tmp_path, bytes(text))
    except UserError as error:
        assert "r.json" in str(error)
    else:
        assert all(isinstance(record, dict | BadExample) for _, record in found)
