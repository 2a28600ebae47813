"""Points at which a test may have the process killed: `SEMID_FAILPOINT=name[:count]`, at the count-th pass.

With `name:count:hang` it hangs there instead, for ever. Which points there are, their callers say. Without the
variable a failpoint is an empty function.
"""

from __future__ import annotations

import os
import signal
import time

_armed, _count, _how = (os.environ.get("SEMID_FAILPOINT", "").split(":") + ["", ""])[:3]

if _armed:
    _left = int(_count or 1)

    def failpoint(name: str) -> None:
        """Die here, as by kill -9, when this point is the one named."""
        global _left
        if name == _armed:
            _left -= 1
            while _left == 0 and _how == "hang":
                time.sleep(60)
            if _left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

else:

    def failpoint(name: str) -> None:
        """Nothing: no test wants to die here."""
