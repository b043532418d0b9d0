"""The sides of the growth suite, each a program that writes what it found for one number of ranks."""
