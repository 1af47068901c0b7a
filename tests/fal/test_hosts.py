from keyreel.fal.hosts import FILE_HOSTS, PREFIXES, is_fals


def test_file_hosts_have_a_prefix() -> None:
    assert PREFIXES.keys() >= FILE_HOSTS


def test_all_hosts_belong_to_fal() -> None:
    assert all(is_fals(host) for host in PREFIXES)
