"""Docker: an image built by the classic builder, whose steps run in containers of the default runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.docker import Docker

pytestmark = pytest.mark.needs_docker

DOCKERFILE = """\
FROM busybox
ENV COLOUR=green
RUN mkdir -p /srv/app && hostname > /srv/app/built-on && id -u > /srv/app/built-by
COPY greeting /srv/app/greeting
WORKDIR /srv/app
RUN cat greeting > copy && pwd > where && echo $COLOUR > colour
USER app
RUN id -un > /tmp/who
ENTRYPOINT ["cat"]
CMD ["greeting"]
"""


@pytest.fixture
def tag(docker: Docker, new_name: Callable[[], str]) -> Iterator[str]:
    """Name for a new image, removed at the end of the test."""
    name = new_name()
    yield name
    docker("rmi", "--force", name)


def test_dockerfile_build(docker: Docker, directory: Path, tag: str):
    assert docker("info", "--format", "{{.DefaultRuntime}}").text == "ctrun"
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "greeting").write_text("hello from the build context\n")
    docker("build", "--tag", tag, str(directory), timeout=100).ok()
    assert docker("run", "--rm", tag).text == "hello from the build context"
    made = docker("run", "--rm", tag, "copy", "where", "colour", "built-by", "/tmp/who").text.splitlines()
    assert made == ["hello from the build context", "/srv/app", "green", "0", "app"]


def test_a_failing_step_fails_the_build_with_its_status(docker: Docker, directory: Path, tag: str):
    (directory / "Dockerfile").write_text("FROM busybox\nRUN exit 9\n")
    result = docker("build", "--tag", tag, str(directory), timeout=100)
    assert result.code != 0
    assert "returned a non-zero code: 9" in result.err


@pytest.mark.needs_limits
def test_steps_have_the_default_limits_asked_for(docker: Docker, directory: Path, tag: str):
    read = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    (directory / "Dockerfile").write_text(f"FROM busybox\nRUN ({read}) > /limit\n")
    docker("build", "--memory", "96m", "--no-cache", "--tag", tag, str(directory), timeout=100).ok()
    assert docker("run", "--rm", tag, "cat", "/limit").text == str(96 << 20)
