"""Environments for peers whose dependencies do not fit beside the project's pins.

A peer's own packages come first, everything else (torch above all) is the project's: both sides run the same torch.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PEERS = {"bentoml": "bentoml==1.4.40", "ray": "ray[serve]==2.60.0"}


def python_of(peer: str, home: Path) -> Path:
    """The interpreter of a peer's environment, made on first use; raises `CalledProcessError` where that fails."""
    folder = home.absolute() / "peers" / peer
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.is_file() or ready.read_text() != PEERS[peer]:
        venv.create(folder, clear=True, with_pip=True)
        packages = next((folder / "lib").glob("python*")) / "site-packages"
        (packages / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
        install = [str(python), "-m", "pip", "install", "--quiet", PEERS[peer]]
        subprocess.run(install, check=True, stdout=sys.stderr)
        ready.write_text(PEERS[peer])
    return python
