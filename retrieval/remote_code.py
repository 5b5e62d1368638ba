"""The code that a published model carries, so that it runs where this package is not installed.

What transformers fetches with a model are modules that lie side by side and import each other as `from .name import x`.
The folders of this package are flat inside; from one folder to another they import by the package's name, and those
lines alone are rewritten.
"""

import ast
import json
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

_PACKAGE = "hcmi"


def save_pipeline_code(pipeline: type, task: str, folder: Path) -> None:
    """
    Puts a pipeline beside the model that was saved into a folder, so that the folder is enough to make it of.

    Args:
        pipeline: its class.
        task: what `transformers.pipeline` knows it by.
        folder: with the model's `config.json`, which gets to know the pipeline.

    Raises:
        ValueError: as for `remote_code`.
        OSError: a file cannot be read or written.
    """
    for name, source in remote_code(pipeline.__module__).items():
        (folder / name).write_text(source, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    implementation = f"{pipeline.__module__.rpartition('.')[2]}.{pipeline.__name__}"
    config["custom_pipelines"] = {task: {"impl": implementation, "pt": ["AutoModel"], "type": "multimodal"}}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def remote_code(module: str) -> dict[str, str]:
    """
    A module of this package and all of its modules that it reaches, ready to lie in one folder.

    Args:
        module: such as "hcmi.retrieval.pipeline_hcmi".

    Returns:
        File name to source.

    Raises:
        ValueError: an import that has no meaning in such a folder, with its file and line; two modules of one name.
    """
    sources: dict[str, str] = {}
    origins: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = f"{name.rpartition('.')[2]}.py"
        if origins.setdefault(file, name) != name:
            raise ValueError(f"{origins[file]} and {name} cannot both be {file} of one folder")
        if file not in sources:
            sources[file], reached = _side_by_side(name)
            waiting += reached
    return sources


def _side_by_side(module: str) -> tuple[str, list[str]]:
    """The module's source with its imports rewritten, and the modules that it imports."""
    path = Path(str(find_spec(module).origin))
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    reached: list[str] = []
    for node in reversed(list(ast.walk(ast.parse(source)))):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == _PACKAGE for alias in node.names):
            raise ValueError(f"{path}, line {node.lineno}: only `from … import …` can be published")
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level == 1 and node.module and "." not in node.module:
            reached.append(f"{module.rpartition('.')[0]}.{node.module}")
        elif node.level:
            raise ValueError(f"{path}, line {node.lineno}: only `from .module import name` can be published")
        elif str(node.module).split(".")[0] == _PACKAGE:
            homes = _homes(node)
            reached += homes
            imports = [f"from .{home.rpartition('.')[2]} import {', '.join(names)}\n" for home, names in homes.items()]
            lines[node.lineno - 1 : node.end_lineno] = [" " * node.col_offset + line for line in imports]
    return "".join(lines), reached


def _homes(node: ast.ImportFrom) -> dict[str, list[str]]:
    """The modules that define what an import names (those behind a package's own imports), with the names."""
    package = find_spec(str(node.module))
    behind: dict[str, str] = {}
    if package.submodule_search_locations is not None:
        tree = ast.parse(Path(str(package.origin)).read_text(encoding="utf-8"))
        for own in (own for own in tree.body if isinstance(own, ast.ImportFrom) and own.level == 1):
            behind |= {alias.name: f"{node.module}.{own.module}" for alias in own.names}
    homes = defaultdict(list)
    for alias in node.names:
        named = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
        homes[behind.get(alias.name, str(node.module))].append(named)
    return dict(sorted(homes.items()))
