"""ctr_common/spec/sysctl.py."""

from __future__ import annotations

import pytest

from ctr_common.spec import sysctl


@pytest.mark.parametrize(
    ("name", "dotted", "path"),
    [
        ("net.ipv4.ip_forward", "net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/1.mtu", "net.ipv4.conf.eth0/1.mtu", "net/ipv4/conf/eth0.1/mtu"),
        ("net/ipv4/conf/eth0.1/mtu", "net.ipv4.conf.eth0/1.mtu", "net/ipv4/conf/eth0.1/mtu"),
    ],
)
def test_the_first_separator_is_the_separator(name: str, dotted: str, path: str) -> None:
    assert sysctl.dotted(name) == dotted
    assert sysctl.path(name) == path


@pytest.mark.parametrize("name", ["", "net..x", "/net/x", "net/../x", "net.//.x", "..", "net/./x", "net.ipv4."])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a sysctl"):
        sysctl.path(name)
