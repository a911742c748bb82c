"""Podman: pods around an infra container, and a pod from a Kubernetes manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.podman import Podman
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_podman, pytest.mark.needs_network_namespaces]

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels:
    app: demo
spec:
  restartPolicy: Never
  hostname: kube-host
  volumes:
    - name: shared
      emptyDir: {{}}
    - name: settings
      hostPath:
        path: {directory}
        type: Directory
  containers:
    - name: web
      image: localhost/busybox:latest
      imagePullPolicy: Never
      command: [sh, -c]
      args: ["echo $GREETING > /shared/index.html; exec httpd -f -p 80 -h /shared"]
      env:
        - name: GREETING
          value: hello from the pod
      resources:
        limits:
          memory: 64Mi
          cpu: 500m
      securityContext:
        capabilities:
          drop: [NET_RAW]
          add: [NET_ADMIN]
      volumeMounts:
        - name: shared
          mountPath: /shared
    - name: side
      image: localhost/busybox:latest
      imagePullPolicy: Never
      command: [sh, -c, "until wget -qO- http://127.0.0.1/; do sleep 0.05; done; exec sleep 1000"]
      securityContext:
        runAsUser: 1000
        runAsGroup: 2000
        readOnlyRootFilesystem: true
      volumeMounts:
        - name: shared
          mountPath: /shared
          readOnly: true
        - name: settings
          mountPath: /settings
          readOnly: true
"""


@pytest.fixture
def pod(podman: Podman, new_name: Callable[[], str]) -> Iterator[str]:
    """Name of a pod that is removed at the end of the test."""
    name = new_name()
    yield name
    podman("pod", "rm", "--force", "--time", "0", "--ignore", name)


def test_containers_of_a_pod_share_the_infra_containers_namespaces(podman: Podman, pod: str):
    podman("pod", "create", "--name", pod, "--infra-image", "localhost/pause", "--share", "net,ipc,uts,pid").ok()
    script = "mkdir /www; echo from the pod > /www/index.html; exec httpd -f -p 80 -h /www"
    podman("run", "--detach", "--pod", pod, "busybox", "sh", "-c", script).ok()
    look = "until wget -qO- http://127.0.0.1/; do :; done; cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l; hostname"
    page, first, processes, name = podman("run", "--rm", "--pod", pod, "busybox", "sh", "-c", look).lines
    assert page == "from the pod"
    assert first == "pause"
    assert int(processes) >= 4
    assert name == pod
    infra = podman("pod", "inspect", "--format", "{{.InfraContainerID}}", pod).text
    assert podman.inspect(infra)["OCIRuntime"] == "ctrun"


def test_a_pod_is_paused_resumed_and_stopped_as_a_whole(podman: Podman, pod: str):
    podman("pod", "create", "--name", pod, "--infra-image", "localhost/pause").ok()
    member = podman("run", "--detach", "--pod", pod, "busybox", "sleep", "1000").text
    podman("pod", "pause", pod).ok()
    assert podman.status(member) == "paused"
    podman("pod", "unpause", pod).ok()
    assert podman.status(member) == "running"
    podman("pod", "stop", "--time", "1", pod).ok()
    assert podman.status(member) == "exited"
    podman("pod", "rm", pod).ok()


@pytest.mark.needs_limits
def test_kube_play_of_a_pod(podman: Podman, pod: str, directory: Path):
    (directory / "colour").write_text("blue")
    manifest = directory / "pod.yaml"
    manifest.write_text(POD.format(name=pod, directory=directory))
    podman("kube", "play", manifest).ok()

    def inside(container: str, script: str) -> list[str]:
        return podman("exec", f"{pod}-{container}", "sh", "-c", script).text.split()

    until("the side car read the page", lambda: podman("logs", f"{pod}-side").out == "hello from the pod\n")
    assert inside("web", "hostname") == ["kube-host"]
    assert inside("side", "id -u; id -g; cat /settings/colour") == ["1000", "2000", "blue"]
    assert podman("exec", f"{pod}-side", "touch", "/shared/new").code != 0
    v1, v2 = "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"
    assert inside("web", f"cat {v1} 2>/dev/null || cat {v2}") == [str(64 << 20)]
    effective = int(inside("web", "awk '/CapEff/ { print $2 }' /proc/self/status")[0], 16)
    assert effective >> 12 & 1
    assert not effective >> 13 & 1
    assert inside("web", "readlink /proc/self/ns/net") == inside("side", "readlink /proc/self/ns/net")
    podman("kube", "down", manifest).ok()
    assert podman("pod", "exists", pod).code == 1
