"""Calico's selectors: what they choose, and what is no selector."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simnet.model.selectors import selector

names = st.sampled_from(["rack", "zone", "has", "kubernetes.io/hostname"])
values = st.sampled_from(["", "r1", "r2", "a b"])


@st.composite
def expressions(draw, depth=3):
    """A selector as text, and what it says of labels, made beside it."""
    kind = draw(st.integers(0, 9 if depth else 6))
    name, value = draw(names), draw(values)
    quoted = draw(st.sampled_from([f"'{value}'", f'"{value}"']))
    if kind == 0:
        return f"{name} == {quoted}", lambda labels: labels.get(name) == value
    if kind == 1:
        return f"{name}!={quoted}", lambda labels: labels.get(name) != value
    if kind == 2:
        return f"has({name})", lambda labels: name in labels
    if kind == 3:
        return f"{name} in {{ {quoted}, 'r2' }}", lambda labels: labels.get(name) in (value, "r2")
    if kind == 4:
        return f"{name} not in {{{quoted}}}", lambda labels: labels.get(name) != value
    if kind == 5:
        return "all()", lambda labels: True
    if kind == 6:
        how, ask = draw(
            st.sampled_from(
                [("contains", str.__contains__), ("starts with", str.startswith), ("ends with", str.endswith)]
            )
        )
        return f"{name} {how} {quoted}", lambda labels: name in labels and ask(labels[name], value)
    one, says_one = draw(expressions(depth - 1))
    if kind == 7:
        return f"!({one})", lambda labels: not says_one(labels)
    other, says_other = draw(expressions(depth - 1))
    if kind == 8:
        return f"({one}) && ({other})", lambda labels: says_one(labels) and says_other(labels)
    return f"({one})||({other})", lambda labels: says_one(labels) or says_other(labels)


@given(expressions(), st.dictionaries(names, values))
def test_a_selector_chooses_what_it_says(expression, labels):
    text, says = expression
    assert selector(text)(labels) is says(labels)


@pytest.mark.parametrize(
    "text, labels, chosen",
    [
        ("", {}, True),
        ("has(a) || has(b) && has(c)", {"a": ""}, True),  # && binds stronger
        ("!has(a) && has(b)", {"b": ""}, True),  # ! binds strongest
        ("rack == 'r1' && !has(spine)", {"rack": "r1", "spine": ""}, False),
    ],
)
def test_what_binds_stronger(text, labels, chosen):
    assert selector(text)(labels) is chosen


@pytest.mark.parametrize(
    "text, reason",
    [
        ("rack = 'a'", "= is no part of a selector"),
        ("rack ==", "the end, where text in quotes should stand"),
        ("rack == a", "a, which should stand in quotes"),
        ("has(", "the end, where a label should stand"),
        ("(has(a)", "the end, where \\) should stand"),
        ("has(a) has(b)", "has where the selector should end"),
        ("rack is 'a'", "is after rack, where an operator should stand"),
    ],
)
def test_what_is_no_selector_is_told(text, reason):
    with pytest.raises(ValueError, match=reason):
        selector(text)
