"""Whatever a manifest holds where, the answer is Objects or an InputError whose text can be printed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from simnet.config.documents import parse_documents
from simnet.config.manifests import objects_from
from simnet.errors import InputError, Problem

COPIES = Path(__file__).parent.parent / "data" / "manifests"
FILES = ("traefik-crd-services--services.yml", "cilium-dualstack-1.26.yaml", "kube-score-list-crlf--list.yaml")
SEEDS = [list(yaml.safe_load_all((COPIES / name).read_bytes())) for name in FILES]
ODD_VALUES = (
    None, True, -1, 1.5, 80.0, 2**70, "", "x", "None", "10.0.0.1", "***", "1/2", "::1/200", [], {}, [None], [[]], [{}],
    {"a": None}, {"": 1},
)  # fmt: skip


def places(data: object) -> list[tuple[dict | list, str | int]]:
    """Return (container, key) of every value in data."""
    if not isinstance(data, dict | list):
        return []
    steps = list(data) if isinstance(data, dict) else list(range(len(data)))
    return [(data, step) for step in steps] + [place for step in steps for place in places(data[step])]


def answer(content: str) -> tuple[Problem, ...]:
    """Return the warnings of a manifest that loads, or the problems (at least one) of a refused one."""
    documents, problems = parse_documents(content.encode(), "f.yaml")
    try:
        return objects_from(documents, problems=problems).warnings
    except InputError as error:
        if not error.problems:
            raise AssertionError("refused without a problem") from error
        return error.problems


@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0), st.sampled_from(ODD_VALUES)), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_odd_values_anywhere_end_in_objects_or_in_an_input_error(seed, edits):
    data = copy.deepcopy(seed)
    for number, value in edits:
        found = places(data)
        container, key = found[number % len(found)]
        container[key] = copy.deepcopy(value)
    for problem in answer(yaml.safe_dump_all(data)):
        assert problem.where.line
        assert str(problem).encode()


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
@pytest.mark.parametrize("field", ["apiVersion", "kind", "metadata", "spec", "status"])
def test_odd_values_at_the_top_of_a_service_do_so_too(field, value):
    data = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 80}]},
        field: value,
    }
    assert all(problem.where.line for problem in answer(yaml.safe_dump(data)))
