"""Numbers that differ between two versions of a release."""

from hypothesis import given, settings
from hypothesis import strategies as st

from echosyn.report.changes import changes

value = st.floats(-10, 10)
metric = st.tuples(value, st.none() | st.tuples(value, value).map(sorted))
metrics = st.dictionaries(st.sampled_from(["a/x", "a/y", "b/x_floor", "c"]), metric)


def flat(found) -> dict[str, float]:
    values = {}
    for key, (number, ends) in found.items():
        values[key] = number
        if ends:
            values |= {f"{key}_lo": ends[0], f"{key}_hi": ends[1]}
    return values


@settings(max_examples=200, deadline=None)
@given(metrics, metrics)
def test_exactly_what_differs_is_named_with_both_values(old, new):
    found = {c.key: c for c in changes(flat(old), flat(new))}
    assert set(found) == {k for k in {*old, *new} if old.get(k) != new.get(k)}
    for key, c in found.items():
        assert (c.old and c.old.value) == (old[key][0] if key in old else None)
        assert (c.new and c.new.value) == (new[key][0] if key in new else None)
        both = key in old and key in new and old[key][1] and new[key][1]
        if not both:
            assert c.overlap is None
        else:
            (a, b), (x, y) = old[key][1], new[key][1]
            assert c.overlap == (max(a, x) <= min(b, y))
    assert {c.key for c in changes(flat(new), flat(old))} == set(found)
    assert changes(flat(old), flat(old)) == []


def test_a_row_says_what_the_intervals_say():
    one, two, three = changes(
        {"a": 1.0, "a_lo": 0.0, "a_hi": 2.0, "gone": 4.0, "same": 5.0},
        {"b": 3.0, "a": 3.0, "a_lo": 2.0, "a_hi": 4.0, "same": 5.0},
    )
    assert [str(cell) for cell in one.row] == ["b", "not measured", "3", ""]
    assert [str(cell) for cell in two.row] == ["a", "1 (0 to 2)", "3 (2 to 4)", "overlap"]
    assert [str(cell) for cell in three.row] == ["gone", "4", "not measured", ""]


def test_a_name_that_only_looks_like_an_interval_is_a_metric():
    (change,) = changes({"halo_lo": 1.0}, {"halo_lo": 2.0})
    assert change.key == "halo_lo"
