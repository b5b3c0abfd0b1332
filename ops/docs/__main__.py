"""Write the reference pages into docs/."""

from pathlib import Path

from ops.docs.pages import pages

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    for name, text in pages().items():
        path = ROOT / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")


main()
