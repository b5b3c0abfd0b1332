"""Reads the configuration file into single values, each with the line it stands on."""

from pathlib import Path
from typing import Any

import yaml

from ops.settings.errors import SettingsError, nearest
from ops.settings.setting import Given, Origin
from ops.settings.table import MODEL_FIELDS, PLAIN
from schemas.model_names import model_id_of

ModelDrafts = dict[str, dict[str, Given]]


class ConfigFile:
    """`values` by key, `models` by id and field; `has_models` when there is a list of them, an empty one perhaps.

    Reads `text` instead of the file where it is given. In a manifest `path` is another word for a model's `source`, and
    a model without an id is called by it. Raises SettingsError: not readable, not YAML, an unknown key.
    """

    def __init__(self, path: Path, text: str | None = None, *, is_manifest: bool = False) -> None:
        self.values: dict[str, Given] = {}
        self.models: ModelDrafts = {}
        self.has_models = False
        self._is_manifest = is_manifest
        self._name = path.name
        try:
            self._loader = yaml.SafeLoader(path.read_text(encoding="utf-8") if text is None else text)
            root = self._loader.get_single_node()
            if root is not None and not _is_null(root):
                self._take_section(root, "")
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise SettingsError(f"{path}: {_one_line(error)}") from None

    def _take_section(self, node: yaml.Node, prefix: str) -> None:
        for name, value in self._pairs(node, prefix.rstrip(".") or "the file"):
            key = prefix + name.value
            if key == "models":
                self._take_models(value)
            elif key in PLAIN:
                self.values[key] = self._given(value)
            elif any(known.startswith(f"{key}.") for known in PLAIN):
                if not _is_null(value):
                    self._take_section(value, f"{key}.")
            else:
                raise self._unknown(name, key, nearest(key, [*PLAIN, *_sections()]))

    def _take_models(self, node: yaml.Node) -> None:
        if _is_null(node):
            return
        self.has_models = True
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._take_model(item, None)
        else:
            for name, value in self._pairs(node, "models"):
                self._take_model(value, name)

    def _take_model(self, node: yaml.Node, name: yaml.Node | None) -> None:
        fields: dict[str, Given] = {}
        model_id = None if name is None else str(name.value)
        for field, value in self._pairs(node, "a model"):
            if field.value == "id":
                model_id = self._model_id(value, model_id)
            elif field.value in ("path", "source") and self._is_manifest:
                if "source" in fields:
                    raise SettingsError(f"{field.value} ({self._origin(field)}): the model's source stands twice")
                fields["source"] = self._given(value)
            elif field.value in MODEL_FIELDS:
                fields[field.value] = self._given(value)
            else:
                hint = nearest(field.value, MODEL_FIELDS)
                raise self._unknown(field, f"models.{model_id or '<id>'}.{field.value}", hint)
        if model_id is None and "source" in fields and self._is_manifest:
            model_id = model_id_of(str(fields["source"].value))
        if model_id is None:
            raise SettingsError(f"models ({self._origin(node)}): a model without id")
        if model_id in self.models:
            raise SettingsError(f"models ({self._origin(node)}): {model_id!r} twice")
        self.models[model_id] = fields

    def _model_id(self, node: yaml.Node, from_name: str | None) -> str:
        model_id = self._given(node).value
        if from_name is not None and str(model_id) != from_name:
            raise SettingsError(f"models.{from_name} ({self._origin(node)}): its id is already {from_name!r}")
        return str(model_id)

    def _pairs(self, node: yaml.Node, where: str) -> list[tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            raise SettingsError(f"{where} ({self._origin(node)}): a map of names is expected here")
        self._loader.flatten_mapping(node)
        seen: set[str] = set()
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise SettingsError(f"{where} ({self._origin(name)}): a name is expected here")
            if name.value in seen:
                raise SettingsError(f"{name.value} ({self._origin(name)}): stands twice in {where}")
            seen.add(name.value)
        return list(node.value)

    def _given(self, node: yaml.Node) -> Given:
        value: Any = self._loader.construct_object(node, deep=True)
        return Given(value, self._origin(node))

    def _origin(self, node: yaml.Node) -> Origin:
        return Origin(f"{self._name}:{node.start_mark.line + 1}")

    def _unknown(self, node: yaml.Node, key: str, hint: str) -> SettingsError:
        return SettingsError(f"unknown key {key!r} ({self._origin(node)}){hint}")


def _sections() -> set[str]:
    return {"models"} | {key.rsplit(".", depth)[0] for key in PLAIN for depth in (1, 2) if key.count(".") >= depth}


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
