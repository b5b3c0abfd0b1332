"""Which files of a repository make the model that was asked for."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from ops.hub.errors import HubError
from ops.hub.listing import HubFile, Listing
from ops.hub.reference import HubReference

# Of the repository's top: weights, configuration, tokenizer in every form there is, chat template.
_FOLDER_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
# A second copy of the weights, in their maker's own layout.
_OTHER_LAYOUT = "consolidated*.safetensors"
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf", re.IGNORECASE)
_SHOWN = 12


class Wanted(NamedTuple):
    """`location` is what a runner opens, relative to the folder of the commit: its first file, or "" for the folder."""

    files: tuple[HubFile, ...]
    location: str

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def choose(reference: HubReference, listing: Listing) -> Wanted:
    """The files to have. Raises HubError: there are none, or several would do."""
    if reference.file is not None:
        return _one_gguf(reference, listing, reference.file)
    folder = _folder(listing)
    if folder is not None:
        return folder
    found = _models(listing)
    if not found:
        raise HubError(
            f"{reference}: there is neither a GGUF file in it, nor config.json with *.safetensors at its top"
        )
    if len(found) > 1:
        raise HubError(f"{reference}: {len(found)} GGUF files are in it; name one of them: {_shown(found)}")
    return _one_gguf(reference, listing, found[0])


def _one_gguf(reference: HubReference, listing: Listing, path: str) -> Wanted:
    file = listing.file(path)
    if file is None:
        models = _models(listing)
        there = f"; there are {_shown(models)}" if models else ""
        raise HubError(f"{reference}: no file {path!r} in it{there}")
    if not path.lower().endswith(".gguf"):
        raise HubError(f"{reference}: only a GGUF file can be named; without one the whole folder is taken")
    part = _PART.fullmatch(path)
    if part is None:
        return Wanted((file,), path)
    # llama.cpp opens the first part and finds the others beside it.
    names = [f"{part['stem']}-{number:05d}-of-{part['total']}.gguf" for number in range(1, int(part["total"]) + 1)]
    files = [listing.file(name) for name in names]
    if not all(files) or not names:
        raise HubError(f"{reference}: of {len(names)} parts {sum(1 for each in files if each is None)} are missing")
    return Wanted(tuple(each for each in files if each is not None), names[0])


def _folder(listing: Listing) -> Wanted | None:
    top = [file for file in listing.files if "/" not in file.path]
    files = [file for file in top if any(fnmatchcase(file.path, pattern) for pattern in _FOLDER_FILES)]
    weights = [file.path for file in files if file.path.endswith(".safetensors")]
    if not weights or not any(file.path == "config.json" for file in files):
        return None
    if not all(fnmatchcase(path, _OTHER_LAYOUT) for path in weights):
        files = [file for file in files if not fnmatchcase(file.path, _OTHER_LAYOUT)]
    return Wanted(tuple(files), "")


def _models(listing: Listing) -> list[str]:
    """GGUF files; of one in parts only the first, and none that go with another (image encoders)."""
    found = []
    for file in listing.files:
        part = _PART.fullmatch(file.path)
        is_later_part = part is not None and int(part["number"]) != 1
        is_companion = file.path.rsplit("/", 1)[-1].lower().startswith("mmproj")
        if file.path.lower().endswith(".gguf") and not is_later_part and not is_companion:
            found.append(file.path)
    return found


def _shown(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
