"""What a small Hub for tests answers. A route gets the request and the parts of its address; it returns JSON, or has
answered itself (None)."""

import base64
import hashlib
import json
import re
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from hub_cards import card_errors, card_metadata, evaluation_results
from hub_state import LARGE, USER, File, HubError, Repository, git_hash

_API, _FILES = r"/api/(?P<kind>model|dataset)s/(?P<name>[^/]+/[^/]+)", r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)"

ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = []
"""Method, pattern of the path, and what answers it; HEAD is asked as GET."""


def _route(method: str, pattern: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(answer: Callable[..., Any]) -> Callable[..., Any]:
        ROUTES.append((method, re.compile(pattern), answer))
        return answer

    return add


@_route("GET", "/api/whoami-v2")
def _who_am_i(request: Any) -> dict[str, Any]:
    if request.user() is None:
        raise HubError(401, message="Invalid username or password.")
    return {"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": {"role": "write"}}}


@_route("POST", "/api/repos/create")
def _create(request: Any) -> dict[str, Any] | None:
    asked = json.loads(request.body)
    kind, owner = asked.get("type") or "model", asked.get("organization") or USER
    name = f"{owner}/{asked['name']}"
    if request.user() is None:
        raise HubError(401, message="Invalid username or password.")
    if owner != USER:
        raise HubError(403, message=f"You don't have the rights to create a repository in {owner}.")
    answer = {"name": name, "url": f"{request.hub.address}/{'datasets/' if kind == 'dataset' else ''}{name}"}
    if (kind, name) in request.hub.repositories:
        request.send(409, answer | {"error": "You already created this repository"})
        return None
    repository = Repository(private=asked.get("visibility") == "private" or asked.get("private") is True)
    attributes = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LARGE)
    repository.commit("main", {".gitattributes": request.hub.store(attributes.encode(), lfs=False)})
    request.hub.repositories[kind, name] = repository
    return answer


@_route("POST", "/api/validate-yaml")
def _validate(request: Any) -> None:
    asked = json.loads(request.body)
    errors, warnings = card_errors(asked["content"], asked["repoType"])
    content = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    request.send(400 if errors else 200, content)


@_route("POST", _API + r"/preupload/(?P<revision>[^/]+)")
def _preupload(request: Any, kind: str, name: str, revision: str) -> dict[str, Any]:
    repository = request.repository(kind, name, write=True)
    there = repository.commits[repository.resolve(revision)]
    files = []
    for file in json.loads(request.body)["files"]:
        path = file["path"]
        mode = "lfs" if path.endswith(LARGE) else "regular"
        known = {"oid": there[path].oid} if path in there else {}
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
    return {"files": files}


@_route("POST", _FILES + r"\.git/info/lfs/objects/batch")
def _lfs_batch(request: Any, name: str, kind: str = "model") -> dict[str, Any]:
    request.repository(kind, name, write=True)
    objects = []
    for wanted in json.loads(request.body)["objects"]:
        if wanted["oid"] not in request.hub.blobs:
            link, check = (f"{request.hub.address}/lfs/{verb}/{wanted['oid']}" for verb in ("put", "verify"))
            wanted["actions"] = {"upload": {"href": link}, "verify": {"href": check}}
        objects.append(wanted)
    return {"transfer": "basic", "objects": objects}


@_route("PUT", "/lfs/put/(?P<oid>[0-9a-f]{64})")
def _lfs_put(request: Any, oid: str) -> dict[str, Any]:
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise HubError(400, message="the content does not have this hash")
    request.hub.store(request.body, lfs=True)
    return {}


@_route("POST", "/lfs/verify/(?P<oid>[0-9a-f]{64})")
def _lfs_verify(request: Any, oid: str) -> dict[str, Any]:
    if len(request.hub.blobs.get(oid, b"")) != json.loads(request.body)["size"]:
        raise HubError(404, message="not uploaded")
    return {}


@_route("POST", _API + r"/commit/(?P<revision>[^/]+)")
def _commit(request: Any, kind: str, name: str, revision: str) -> dict[str, Any]:
    repository, hub = request.repository(kind, name, write=True), request.hub
    files = dict(repository.commits[repository.resolve(revision)])
    for line in request.body.splitlines():
        entry = json.loads(line)
        value, path = entry["value"], entry["value"].get("path")
        if entry["key"] == "file":
            files[path] = hub.store(base64.b64decode(value["content"]), lfs=False)
        elif entry["key"] == "lfsFile":
            if value["oid"] not in hub.blobs:
                raise HubError(400, message=f"the LFS file {path} was not uploaded")
            files[path] = File(value["oid"], len(hub.blobs[value["oid"]]), lfs=True)
        elif entry["key"].startswith("deleted"):
            files = {own: file for own, file in files.items() if own != path and not own.startswith(f"{path}/")}
    commit = repository.commit(revision, files)
    return {"success": True, "commitOid": commit, "commitUrl": f"{hub.address}/{name}/commit/{commit}"}


@_route("POST", _API + r"/(?P<what>branch|tag)/(?P<where>[^/]+)")
def _reference(request: Any, kind: str, name: str, what: str, where: str) -> dict[str, Any]:
    repository = request.repository(kind, name, write=True)
    asked = json.loads(request.body or b"{}")
    new, place = (where, repository.branches) if what == "branch" else (asked["tag"], repository.tags)
    if new in place:
        raise HubError(409, message="Reference already exists")
    place[new] = repository.resolve(asked.get("startingPoint", "main") if what == "branch" else where)
    return {}


@_route("GET", _API + "/refs")
def _references(request: Any, kind: str, name: str) -> dict[str, Any]:
    repository = request.repository(kind, name)

    def listed(references: Mapping[str, str], folder: str) -> list[dict[str, str]]:
        return [{"name": n, "ref": f"refs/{folder}/{n}", "targetCommit": c} for n, c in references.items()]

    return {"branches": listed(repository.branches, "heads"), "tags": listed(repository.tags, "tags"), "converts": []}


@_route("GET", _API + "(/revision/(?P<revision>[^/]+))?")
def _information(request: Any, kind: str, name: str, revision: str = "main") -> dict[str, Any]:
    repository = request.repository(kind, name)
    commit = repository.resolve(revision)
    files = repository.commits[commit]
    texts = {p: request.hub.blobs[file.oid].decode() for p, file in files.items() if p.endswith((".md", ".yaml"))}
    metadata = card_metadata(texts.get("README.md", "")) or {}
    answer = {"id": name, "modelId": name, "author": name.split("/")[0], "sha": commit, "private": repository.private}
    answer |= {
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "siblings": [{"rfilename": p} for p in files],
    }
    answer |= {"tags": metadata.get("tags", []), "cardData": metadata, "evalResults": evaluation_results(texts)}
    return answer | {key: metadata[key] for key in ("library_name", "pipeline_tag") if key in metadata}


def _listed(path: str, files: Mapping[str, File]) -> dict[str, Any]:
    if path not in files:
        return {"type": "directory", "path": path, "oid": git_hash(path.encode()), "size": 0}
    file = files[path]
    lfs = {"lfs": {"oid": file.oid, "size": file.size, "pointerSize": 134}} if file.lfs else {}
    return {"type": "file", "path": path, "oid": file.oid[:40], "size": file.size, **lfs}


def _folders(files: Mapping[str, File]) -> set[str]:
    return {path[: cut.start()] for path in files for cut in re.finditer("/", path)}


@_route("GET", _API + r"/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?")
def _tree(request: Any, kind: str, name: str, revision: str, folder: str = "") -> list[dict[str, Any]]:
    repository = request.repository(kind, name)
    files = repository.commits[repository.resolve(revision)]
    if folder and folder not in _folders(files):
        raise HubError(404, "EntryNotFound", f"{folder} does not exist")
    below = sorted(p for p in {*files, *_folders(files)} if p.startswith(f"{folder}/" if folder else ""))
    if request.query.get("recursive", "false").lower() not in ("true", "1"):
        below = [path for path in below if "/" not in path[len(folder) :].lstrip("/")]
    return [_listed(path, files) for path in below]


@_route("POST", _API + r"/paths-info/(?P<revision>[^/]+)")
def _paths(request: Any, kind: str, name: str, revision: str) -> list[dict[str, Any]]:
    repository = request.repository(kind, name)
    files = repository.commits[repository.resolve(revision)]
    asked = [value for key, value in urllib.parse.parse_qsl(request.body.decode()) if key == "paths"]
    return [_listed(path, files) for path in asked if path in {*files, *_folders(files)}]


@_route("GET", _FILES + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def _file(request: Any, name: str, revision: str, path: str, kind: str = "model") -> None:
    repository = request.repository(kind, name)
    commit = repository.resolve(revision)
    file = repository.commits[commit].get(path)
    if file is None:
        missing = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", "X-Repo-Commit": commit}
        return request.send(404, {"error": "Entry not found"}, missing)
    content = request.hub.blobs[file.oid]
    headers = {"ETag": f'"{file.oid}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": str(file.size)}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
    if asked is None:
        return request.send(200, content, headers)
    first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return request.send(206, content[first : last + 1], headers)
