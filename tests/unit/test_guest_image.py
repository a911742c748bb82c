"""tests/vm/guest/image.py: where the guest's packages come from."""

from __future__ import annotations

import pytest

from tests.vm.guest.image import mirror_in


@pytest.mark.parametrize("release", ["bookworm", "trixie", "stable"])
def test_the_mirror_is_the_one_that_has_a_debian_release(release: str) -> None:
    uris = f"""\
'https://deb.nodesource.com/node/dists/nodistro/main/binary-amd64/Packages.gz' deb.nodesource.com_Packages 0
'http://mirror.example/debian-security/dists/{release}-security/main/binary-amd64/Packages.xz' security 0
'http://mirror.example/debian/dists/{release}/InRelease' InRelease 0
'http://mirror.example/debian/dists/{release}/contrib/binary-amd64/Packages.xz' contrib 0
'http://mirror.example/debian/dists/{release}/main/binary-amd64/Packages.xz' main 0
"""
    assert mirror_in(uris) == "http://mirror.example/debian"


def test_a_host_of_another_distribution_has_no_mirror() -> None:
    assert mirror_in("'http://mirror.example/ubuntu/dists/noble/main/binary-amd64/Packages.xz' main 0\n") == ""
