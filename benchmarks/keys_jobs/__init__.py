"""The programs of the keys suite, one for each side."""
