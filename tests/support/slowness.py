"""How much more time commands get where the processor is emulated."""

from __future__ import annotations

import os

# 1 on a real processor; the guest of tests/vm sets another
SLOWNESS = float(os.environ.get("CTR_TEST_SLOWNESS") or 1)
