"""The functions that a provider file may name (`function = "..."`): what its expressions cannot say.

Owns the one table of them. Each lives in the module of its provider, is pure, and turns one element of a body into the
documents that the rules are applied to.
"""

from collections.abc import Mapping
from typing import Final

from relayfile.ingest.providers.definition import Shape

FUNCTIONS: Final[Mapping[str, Shape]] = {}
