"""Turns the config.json that `ctrun spec` wrote into the demo's: no terminal, and the script that shows the container.

usage: configure.py CONFIG_JSON SCRIPT_IN_THE_CONTAINER
"""

import json
import sys
from pathlib import Path

path, script = Path(sys.argv[1]), sys.argv[2]
config = json.loads(path.read_text())
config["process"]["terminal"] = False
config["process"]["args"] = ["sh", script]
config["hostname"] = "demo"
path.write_text(json.dumps(config, indent=4))
