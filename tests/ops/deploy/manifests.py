"""The Kubernetes files, put together as kustomize would, as far as ours use it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.ops.deploy.commands import DEPLOY

KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("cpu", "cuda", "keda")
Manifest = dict[str, Any]
_KNOWN = {
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "configMapGenerator",
    "generatorOptions",
    "images",
    "patches",
}


def documents(path: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


class Kustomization:
    """A folder with all that it builds. Asserts that what it names is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.document,) = documents(folder / "kustomization.yaml")
        assert set(self.document) <= _KNOWN, folder
        self.manifests: dict[tuple[str, str], Manifest] = {}
        self.images: dict[str, str] = {}
        # The files of each ConfigMap that is generated.
        self.files: dict[str, list[Path]] = {}
        for name in self.document.get("resources", ()):
            self._add(folder / name)
        for generator in self.document.get("configMapGenerator", ()):
            self._generate(generator)
        for image in self.document.get("images", ()):
            assert any(image["name"] == used for used in self._used_images()), image
            self.images[image["name"]] = image["newTag"]
        for patch in self.document.get("patches", ()):
            self._patch(patch)

    def of_kind(self, kind: str) -> list[Manifest]:
        return [manifest for (each, _), manifest in self.manifests.items() if each == kind]

    def pods(self) -> Iterator[tuple[Manifest, Manifest]]:
        """Everything that runs pods, with the pod's template."""
        for kind in ("Deployment", "StatefulSet", "Job"):
            for manifest in self.of_kind(kind):
                yield manifest, manifest["spec"]["template"]

    def _add(self, path: Path) -> None:
        assert path.exists(), path
        if path.is_dir():
            inner = Kustomization(path)
            self.manifests |= inner.manifests
            self.images |= inner.images
            self.files |= inner.files
            return
        for manifest in documents(path):
            key = (manifest["kind"], manifest["metadata"]["name"])
            assert key not in self.manifests, key
            self.manifests[key] = manifest

    def _generate(self, generator: Manifest) -> None:
        name, is_replaced = generator["name"], generator.get("behavior") == "replace"
        assert (name in self.files) is is_replaced, f"{name}: in {self.folder}"
        self.files[name] = [self.folder / file for file in generator["files"]]
        assert all(path.is_file() for path in self.files[name]), generator

    def _used_images(self) -> Iterator[str]:
        for _, template in self.pods():
            for container in template["spec"]["containers"]:
                yield container["image"]

    def _patch(self, patch: Manifest) -> None:
        target = (patch["target"]["kind"], patch["target"]["name"])
        assert target in self.manifests, target
        for operation in yaml.safe_load(patch["patch"]):
            *path, last = operation["path"].strip("/").split("/")
            place: Any = self.manifests[target]
            for step in path:
                place = place[int(step)] if isinstance(place, list) else place[step]
            assert last in place, operation
            if operation["op"] == "remove":
                del place[last]
            else:
                assert operation["op"] == "replace"
                place[last] = operation["value"]
