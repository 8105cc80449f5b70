"""Where Prosody's own mod_client_proxy is: a community module that Debian does not package."""

import os
from pathlib import Path


def _places():
    named = os.environ.get("PROSODY_MODULES", "").split(":")
    return [*filter(None, named), "/usr/local/lib/prosody/modules", "/usr/lib/prosody/modules",
            "/opt/prosody-modules"]


def directory():
    """The directory of modules that has it, if there is one."""
    found = [path for path in _places() if (Path(path) / "mod_client_proxy").is_dir()]
    return found[0] if found else None


def why_not():
    """Why it is not tried."""
    return ("it is in none of " + ", ".join(_places())
            + "; PROSODY_MODULES=DIR with a copy of hg.prosody.im/prosody-modules has it tried")
