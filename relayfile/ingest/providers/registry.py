"""The providers that a process knows, by name.

Owns which files are loaded: those of the package, then those of `RELAYFILE_PROVIDERS_DIR`, which add or replace.
Refuses to start with a broken file.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from relayfile.errors import StartRefused
from relayfile.ingest.providers.adapter import Provider
from relayfile.ingest.providers.provider_file import load_provider

BUILT_IN = Path(__file__).parent


class ProviderRegistry(Mapping[str, Provider]):
    """Providers by name. Immutable after loading."""

    def __init__(self, providers: Mapping[str, Provider], files: Mapping[str, Path]) -> None:
        self._providers = dict(providers)
        self.files = dict(files)
        """Where each of them was read from."""

    @classmethod
    def load(cls, content_bytes_max: int, extra: Path | None = None) -> "ProviderRegistry":
        """All of the package's providers and those in the directory ``extra``. `StartRefused` names a broken file."""
        found: dict[str, Provider] = {}
        files: dict[str, Path] = {}
        for directory in (BUILT_IN, extra):
            if directory is None:
                continue
            if not directory.is_dir():
                raise StartRefused(why=f"the directory of provider files {directory} does not exist")
            for path in sorted(directory.glob("*.toml")):
                definition = load_provider(path)
                if definition.name != path.stem:
                    raise StartRefused(why=f"provider file {path.name}: name is {definition.name!r}, not {path.stem!r}")
                found[definition.name] = Provider(definition, content_bytes_max)
                files[definition.name] = path
        return cls(found, files)

    def __getitem__(self, name: str) -> Provider:
        return self._providers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._providers)

    def __len__(self) -> int:
        return len(self._providers)
