"""Plain values as YAML that people read."""

from __future__ import annotations

from typing import Any

from paibook.errors import PlanError


def yaml_text(*documents: Any, header: str = "") -> str:
    """YAML of one or more documents; ``header`` becomes its first lines, as comments.

    Raises:
        PlanError: The YAML library is missing.
    """
    try:
        import yaml
    except ImportError as error:
        raise PlanError("this export needs the extra `jobs`: pip install 'paibook[jobs]'") from error

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 1000}
    texts = [yaml.dump(document, Dumper=Dumper, **options) for document in documents]
    return "".join(f"# {line}\n" for line in header.splitlines()) + "---\n".join(texts)
