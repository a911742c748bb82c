"""Version of this release, and of the runtime specification that it follows."""

VERSION = "0.1.0"
SPEC_VERSION = "1.3.0"
