"""The kernel's application: preloads paibook, rewrites nothing."""

from __future__ import annotations

from ipykernel.kernelapp import IPKernelApp
from traitlets import List, Unicode

import paibook


class PaibookKernelApp(IPKernelApp):
    """An IPython kernel whose user namespace has ``pai`` and whose shell has the ``%%pai_*`` cells."""

    # The user's own `c.InteractiveShellApp.extensions` comes on top of this, it does not replace it.
    default_extensions = List(
        Unicode(), ["storemagic", "paibook"], help="Extensions loaded before the user's own."
    ).tag(config=True)

    def init_extensions(self) -> None:
        """Load the extensions, then define ``pai``, hidden from ``%who`` like everything a kernel starts with."""
        super().init_extensions()
        assert self.shell is not None, "extensions are loaded into a shell"
        self.shell.push({"pai": paibook}, interactive=False)
