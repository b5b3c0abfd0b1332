"""The result of one look at the machine."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """`is_needed`: without it `inferflux up` cannot start. `fix` is a command, empty when all is well."""

    name: str
    is_ok: bool
    detail: str
    fix: str = ""
    is_needed: bool = True

    @property
    def mark(self) -> str:
        if self.is_ok:
            return "ok"
        return "MISSING" if self.is_needed else "absent"

    def as_json(self) -> dict[str, Any]:
        document = asdict(self)
        return {"ok": document.pop("is_ok"), "needed": document.pop("is_needed"), **document}
