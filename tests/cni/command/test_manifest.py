"""Manifests are read as Kubernetes reads them, and what cannot be read is told by file, document and line."""

import pytest

from actors.errors import InvalidObject
from cni.command.manifest import dump, read_documents, read_mapping


@pytest.fixture
def read(tmp_path):
    def write_and_read(text):
        path = tmp_path / "objects.yaml"
        path.write_text(text)
        return read_documents([str(path)])

    return write_and_read


def test_every_object_says_where_it_stands(read):
    found, refusals = read(
        "# a comment\nkind: A\n---\n---\nkind: List\nitems:\n- kind: B\n- {kind: C}\n---\nkind: D\n"
    )

    assert refusals == []
    assert [(one.object["kind"], one.number, one.item, one.line) for one in found] == [
        ("A", 1, 0, 2),
        ("B", 3, 1, 7),
        ("C", 3, 2, 8),
        ("D", 4, 0, 10),
    ]


def test_scalars_are_those_of_kubernetes(read):
    found, _ = read(
        "{time: 2024-01-01T00:00:00Z, v6: 2001:10:20:30:40:50:20:1, sixty: 10:20, int: 64, octal: 010,"
        " hex: 0x1F, float: 1.5, exponent: 1e3, flag: yes, none: null, address: 10.6.0.1}"
    )

    assert found[0].object == {
        "time": "2024-01-01T00:00:00Z",
        "v6": "2001:10:20:30:40:50:20:1",
        "sixty": "10:20",
        "int": 64,
        "octal": 8,
        "hex": 31,
        "float": 1.5,
        "exponent": 1000.0,
        "flag": True,
        "none": None,
        "address": "10.6.0.1",
    }


def test_json_is_read_too(read):
    found, refusals = read('{"kind": "Pod", "metadata": {"name": "a\\u0062"}}')

    assert (found[0].object["metadata"], refusals) == ({"name": "ab"}, [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: A\n---\nkind: [A\n", "document 2, line 4: is not YAML"),
        (
            "kind: A\n---\nkind: A\nspec:\n  a: 1\n  a: 2\n",
            "document 2, line 6: is not YAML: key 'a' stands twice",
        ),
        ("kind: A\n---\n- 1\n", "document 2, line 3: is a list"),
        ("just words", "document 1, line 1: is a str"),
        ("kind: List\nitems:\n- kind: A\n- 7\n", "document 1 item 2, line 4: is not an object"),
        (
            "kind: !!python/object/apply:os.system [id]\n",
            "document 1, line 1: could not determine a constructor",
        ),
        ("a: &a [*a]\n", "contains itself"),
        ("kind: \x07\n", "is not YAML"),
        ("", "there is no object in it"),
    ],
)
def test_what_cannot_be_read_is_told(read, text, told):
    _, refusals = read(text)

    assert len(refusals) == 1
    assert "objects.yaml" in refusals[0]
    assert told in refusals[0]


def test_nested_aliases_do_not_multiply(read):
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]

    found, refusals = read("\n".join(lines))

    assert found == []
    assert "values once its aliases are written out" in refusals[0]


def test_deep_nesting_is_refused_not_crashed(read):
    _, refusals = read("a: " + "[" * 5000)

    assert "nested too deeply" in refusals[0] or "is not YAML" in refusals[0]


def test_merge_keys_and_overrides_are_no_duplicates(read):
    found, refusals = read("base: &base {a: 1, b: 2}\nmine:\n  <<: *base\n  b: 3\n")

    assert (found[0].object["mine"], refusals) == ({"a": 1, "b": 3}, [])


def test_a_directory_gives_its_manifests_in_order(tmp_path):
    for name, kind in (("b.yaml", "B"), ("a.json", '"A"'), ("readme.txt", "[")):
        (tmp_path / name).write_text(f'{{"kind": {kind}}}')

    found, refusals = read_documents([str(tmp_path)])

    assert ([one.object["kind"] for one in found], refusals) == (["A", "B"], [])


def test_a_directory_without_manifests_and_a_missing_file_are_told(tmp_path):
    with pytest.raises(InvalidObject, match="no file that ends in"):
        read_documents([str(tmp_path)])
    _, refusals = read_documents([str(tmp_path / "missing.yaml")])

    assert refusals == [f"{tmp_path}/missing.yaml: cannot be read: No such file or directory"]


def test_one_mapping_is_wanted(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("a: 1\n---\nb: 2\n")

    with pytest.raises(InvalidObject, match="2 documents"):
        read_mapping(str(path), "the Pod object")


def test_what_is_dumped_reads_the_same(read):
    value = {"b": ["10.6.0.1", "yes", "2024-01-01"], "a": {"n": 1, "none": None, "text": "é: #"}}

    found, _ = read(dump(value))

    assert found[0].object == value
