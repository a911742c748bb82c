"""What `features` tells: the features structure of the runtime specification (features.md, features-linux.md).

As there, "enabled" means that this build can do it, whatever the host is like today; only the seccomp flags are those
of the running kernel.
"""

from ctr_common.spec import capabilities, mount_options, seccomp_names, validate_linux
from ctr_common.spec.default import OCI_VERSION
from ctr_common.spec.namespaces import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_VERSION_MIN = "1.0.0"

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

# Annotations that change what the runtime does; engines refuse to let users set them (features.md).
UNSAFE_ANNOTATIONS = ("org.criu.config", "org.systemd.property.")

# Architectures that libseccomp learned in 2.6.
_SINCE_LIBSECCOMP_2_6 = ("SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB")


def features() -> "dict[str, Any]":
    """The features structure, in runc's order of keys.

    Returns:
        a new object, valid against features-schema.json.
    """
    from ctr_common.version import VERSION

    seccomp, libseccomp = _seccomp()
    # By this name, which is runc's, engines know it.
    annotations = {"org.opencontainers.runc.checkpoint.enabled": "true", "org.ctrun.version": VERSION}
    if libseccomp:
        annotations = {"io.github.seccomp.libseccomp.version": libseccomp, **annotations}
    return {
        "ociVersionMin": OCI_VERSION_MIN,
        "ociVersionMax": OCI_VERSION,
        "hooks": list(HOOKS),
        "mountOptions": sorted(
            [
                *mount_options.FLAGS,
                *mount_options.PROPAGATION,
                *mount_options.RECURSIVE,
                *mount_options.EXTENSIONS,
            ]
        ),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": seccomp,
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True},
            "memoryPolicy": {
                "modes": sorted(validate_linux.MEMORY_MODES),
                "flags": sorted(validate_linux.MEMORY_FLAGS),
            },
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": list(UNSAFE_ANNOTATIONS),
    }


def _seccomp() -> "tuple[dict[str, Any], str]":
    """The seccomp part, and the version of libseccomp; "" when this build has none."""
    try:
        from ctr_common.kernel import _seccomp as compiler
    except ImportError:
        return {"enabled": False}, ""
    version = compiler.version()
    architectures = [
        name for name in seccomp_names.ARCHITECTURES if version >= (2, 6, 0) or name not in _SINCE_LIBSECCOMP_2_6
    ]
    return {
        "enabled": True,
        "actions": list(seccomp_names.ACTIONS),
        "operators": list(seccomp_names.OPERATORS),
        "archs": architectures,
        "knownFlags": list(seccomp_names.FLAGS),
        "supportedFlags": [
            # WAIT_KILLABLE_RECV is valid together with NEW_LISTENER only; that one the kernel has had for longer.
            name
            for name, bit in seccomp_names.FLAGS.items()
            if compiler.flags_available(bit | seccomp_names.NEW_LISTENER * (name.endswith("_RECV")))
        ],
    }, ".".join(str(part) for part in version)
