"""The library that the study's notebooks call."""

from reidlib import sources  # first of all: it reads the code that this process is about to run
