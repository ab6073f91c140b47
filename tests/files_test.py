"""Files are either whole or not there."""

import json
import os

import pytest

from lpi_jax.files import write_atomically, write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_appears_under_its_name_only(tmp_path):
    write_atomically(tmp_path / "a.bin", lambda file: file.write(b"\x00\xff"))
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff"
    assert names(tmp_path) == ["a.bin"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")

    def write(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["results.json"]
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "new.json", write)
    assert names(tmp_path) == ["results.json"]


def test_until_the_writer_is_done_a_reader_sees_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen = []

    def write(file):
        file.write(b"new, and longer")
        file.flush()
        seen.append(path.read_text())

    write_atomically(path, write)
    assert seen == ["old"]
    assert path.read_text() == "new, and longer"


def test_what_is_renamed_is_on_disk_before(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    write_atomically(tmp_path / "a", lambda file: file.write(b"x"))
    assert order == ["fsync", "replace"]


def test_a_temporary_file_of_a_killed_process_is_no_hindrance(tmp_path):
    (tmp_path / ".a.json.part").write_text("half of something")
    write_json(tmp_path / "a.json", {"b": 1})
    assert names(tmp_path) == ["a.json"]


def test_json_is_readable_by_people_and_keeps_its_values(tmp_path):
    value = {"tasks": ["Küche"], "recall": [1.25, 1 / 3], "none": None}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "Küche" in text
    assert text.endswith("}\n")
    assert len(text.splitlines()) > 3


def test_what_is_no_json_writes_nothing(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a.json", {"a": object()})
    assert names(tmp_path) == []
