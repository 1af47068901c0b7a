from keyreel.fal.hosts import FILE_HOSTS, PREFIXES


def test_file_hosts_have_a_prefix() -> None:
    assert PREFIXES.keys() >= FILE_HOSTS


def test_all_hosts_belong_to_fal() -> None:
    assert all(host.endswith(("fal.run", "fal.ai", "fal.media")) for host in PREFIXES)
