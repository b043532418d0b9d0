"""Runs that outlive their notebook: a process of their own carries them out, and any other may follow and stop them."""
