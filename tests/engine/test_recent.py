from keyreel.engine.recent import Recent


def test_values_not_used_for_longest_go_first() -> None:
    recent: Recent[str] = Recent(10, len)
    for key, value in {"a": "aaaa", "b": "bbbb"}.items():
        recent.put(key, value)
    assert recent.get("a") == "aaaa"
    recent.put("c", "cccc")
    assert [recent.get(key) for key in "abc"] == ["aaaa", None, "cccc"]
    recent.put("d", "d" * 10)
    assert [recent.get(key) for key in "acd"] == [None, None, "d" * 10]


def test_a_value_that_is_too_large_costs_no_other() -> None:
    recent: Recent[str] = Recent(4, len)
    recent.put("a", "aaaa")
    recent.put("b", "bbbbb")
    assert (recent.get("a"), recent.get("b")) == ("aaaa", None)
