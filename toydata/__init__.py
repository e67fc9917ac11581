"""Drawn vehicles and people, so that a study runs anywhere with no download; no real study needs this package.

Two domains in the very layouts of VeRi-776 and Market-1501, and captioned pictures of both to pretrain miniatures on.
It stands alone: nothing here knows of reidlib.
"""

from toydata.dataset import DOMAINS, FOLDERS, captioned, write

__all__ = ["DOMAINS", "FOLDERS", "captioned", "write"]
