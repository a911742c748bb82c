"""A containerd of the tests' own and the `ctr` command for it."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import tarfile
from pathlib import Path

from tests.clients.daemons import CLEAN_ENV, Daemon, remove_cgroups
from tests.support.command import Result, run
from tests.support.terminal import Terminal

CONFIG = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{directory}/socket"
"""
IMAGE = "localhost/busybox:latest"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def oci_archive(layer: Path, archive: Path) -> None:
    """Writes an OCI image archive of one layer.

    Args:
        layer: tar archive of the root file system.
        archive: the file to write.
    """
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        media_type = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    layer_blob = blob(layer.read_bytes(), "layer.v1.tar")
    config = {
        "architecture": MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "config.v1+json"),
        "layers": [layer_blob],
    }
    named = {**blob(json.dumps(manifest).encode(), "manifest.v1+json")}
    named["annotations"] = {"io.containerd.image.name": IMAGE}
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [named]}).encode()
    files |= {f"blobs/sha256/{digest}": data for digest, data in blobs.items()}
    with tarfile.open(archive, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


class Containerd:
    """A running containerd and the ctr command for it.

    Args:
        directory: where all of its files go; made here.
        runtime: the OCI runtime, run by the stock shim.
        namespace: containerd's namespace for all that is made; also the name of the parent cgroup.
    """

    def __init__(self, directory: Path, runtime: Path, namespace: str) -> None:
        directory.mkdir()
        self.namespace = namespace
        self.runtime = runtime
        (directory / "config.toml").write_text(CONFIG.format(directory=directory))
        self.command = ["ctr", "--address", f"{directory}/socket", "--namespace", namespace]
        self.daemon = Daemon(["containerd", "--config", directory / "config.toml"], directory)
        self.daemon.wait_until_ready(lambda: self("version").code == 0)

    def stop(self) -> None:
        """Ends the daemon and removes what it leaves on the host."""
        self.daemon.stop()
        remove_cgroups(self.namespace)
        # the shim's own place for states of the runtime, outside of containerd's directories
        shutil.rmtree(Path("/run/containerd/runc", self.namespace), ignore_errors=True)

    def __call__(self, *args: str | Path, timeout: float = 60, stdin: str | None = None) -> Result:
        """Runs one ctr command to its end."""
        __tracebackhide__ = True
        return run(*self.command, *args, timeout=timeout, stdin=stdin, env=CLEAN_ENV)

    def run(self, *flags: str | Path, name: str, script: str) -> Result:
        """Runs a script in a new container."""
        __tracebackhide__ = True
        return self("run", "--runc-binary", self.runtime, *flags, IMAGE, name, "sh", "-c", script)

    def terminal(self, *args: str) -> Terminal:
        """Runs one ctr command on a terminal."""
        return Terminal(*self.command, *args, env=CLEAN_ENV)

    def status(self, name: str) -> str:
        """Status of the task of that name, in containerd's words; an empty string when there is none."""
        for line in self("tasks", "list").lines[1:]:
            words = line.split()
            if words[0] == name:
                return words[2]
        return ""

    def metrics(self, name: str) -> dict[str, str]:
        """The task's metrics by name."""
        __tracebackhide__ = True
        lines = [line.split(None, 1) for line in self("tasks", "metrics", name).lines]
        return {line[0]: line[1].strip() for line in lines if len(line) == 2}
