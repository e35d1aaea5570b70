"""API keys: who may ask for predictions, report outcomes, see how serving does, and take a release back.

    python -m serving.keys make dashboards --scope watch
    python -m serving.keys make me --scope admin
    python -m serving.keys list
    python -m serving.keys revoke dashboards

A key is shown once, when it is made; `api_keys.json` under `EVERGREEN_HOME` keeps its SHA-256 (256 random bits need no slower
hash), its scopes and its name. A change of the file counts from the next request on, in every process.
"""

import argparse
import hashlib
import hmac
import re
import secrets
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from fastapi import FastAPI, HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from pydantic import Field, TypeAdapter, ValidationError
from starlette.datastructures import State

from evergreen.errors import ConfigurationError, EvergreenError
from evergreen.settings import Settings
from evergreen.training.run.processes import locked
from evergreen.types import Fact, Utc

Scope = Literal["predict", "outcomes", "watch", "admin"]
"""What a key is for: each by itself, but that an admin may watch too."""
PREFIX = "evergreen_"
LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")


class ApiKey(Fact):
    """What is kept of a key: enough to know it again, not enough to use it."""

    name: str
    scopes: tuple[Scope, ...]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    made_at: Utc


FILE: TypeAdapter[list[ApiKey]] = TypeAdapter(list[ApiKey])


class ApiKeys:
    """The keys of one file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at: tuple[int, int] | None = None
        self._keys: list[ApiKey] = []

    def all(self) -> list[ApiKey]:
        """Every key there is; none without the file. Raises `ConfigurationError` where it cannot be read."""
        try:
            found = self._path.stat()
            if (stamp := (found.st_mtime_ns, found.st_ino)) != self._read_at:
                self._keys = FILE.validate_json(self._path.read_bytes())
                self._read_at = stamp
        except FileNotFoundError:
            self._keys, self._read_at = [], None
        except OSError as error:
            raise ConfigurationError(
                f"the API keys in {self._path} cannot be read: {error.strerror}. Correct the file."
            ) from error
        except ValidationError as error:  # whose text repeats what is in the file, and whoever has no key would be told
            raise ConfigurationError(
                f"the API keys in {self._path} cannot be read: {_place(error)}. Correct the file."
            ) from None
        return self._keys

    def holder(self, key: str) -> ApiKey | None:
        """Whose key this is; takes as long whichever it is, or none."""
        given = hashlib.sha256(key.encode(errors="replace")).hexdigest()
        found = None
        for one in self.all():
            if hmac.compare_digest(one.sha256, given):
                found = one
        return found

    def make(self, name: str, scopes: Sequence[Scope]) -> str:
        """A new key, returned here and nowhere else. Raises `ConfigurationError` where the name is taken."""
        key = PREFIX + secrets.token_urlsafe(32)
        digest = hashlib.sha256(key.encode()).hexdigest()
        made = ApiKey(name=name, scopes=tuple(scopes), sha256=digest, made_at=datetime.now(UTC))
        with self._alone():
            if any(one.name == name for one in self.all()):
                raise ConfigurationError(
                    f"there is a key named {name!r} already; revoke it first, or choose another name"
                )
            self._write([*self.all(), made])
        return key

    def revoke(self, name: str) -> None:
        """Forget a key. Raises `ConfigurationError` naming those there are."""
        with self._alone():
            kept = [one for one in self.all() if one.name != name]
            if len(kept) == len(self.all()):
                raise ConfigurationError(f"there is no key {name!r}; there are {[one.name for one in kept]}")
            self._write(kept)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else changes the file between what is read of it here and what is written."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._path.with_suffix(".lock"), on_wait=lambda: None):
            yield

    def _write(self, keys: list[ApiKey]) -> None:
        with tempfile.NamedTemporaryFile(dir=self._path.parent, delete=False) as file:  # only its owner may read it
            file.write(FILE.dump_json(keys, indent=1))
        Path(file.name).replace(self._path)


def _place(error: ValidationError) -> str:
    """Where in the file the first fault is, and of what kind; nothing of what is written there."""
    first = error.errors(include_input=False, include_context=False, include_url=False)[0]
    steps = [f"key {step}" if isinstance(step, int) else step for step in first["loc"][:2]]
    known = [step for step in steps if step.startswith("key ") or step in ApiKey.model_fields]
    return ", ".join([*known, first["type"]])


def require_keys_beyond_loopback(settings: Settings) -> None:
    """Raise `ConfigurationError` where anybody on the network could ask."""
    if not settings.require_api_keys and not LOOPBACK.fullmatch(settings.host):
        raise ConfigurationError(
            f"serving would listen on {settings.host}, beyond this machine, and let anybody in. Set "
            "EVERGREEN_REQUIRE_API_KEYS=true and make a key with `python -m serving.keys make NAME --scope predict`, "
            "or listen on 127.0.0.1."
        )


API_KEY = HTTPBearer(scheme_name="ApiKey", auto_error=False, description="Where keys are required")
ADMIN_KEY = HTTPBearer(scheme_name="AdminKey", auto_error=False, description="To change a release, always")


def is_admitted(state: State, authorization: bytes, scope: Scope) -> bool:
    """Whether `require(scope)` would let a request with this header in; why not is for that to say."""
    if not state.keys_required:
        return True
    kind, key = get_authorization_scheme_param(authorization.decode("latin-1"))
    holder = state.keys.holder(key) if kind.lower() == "bearer" else None
    return holder is not None and scope in holder.scopes


def require(
    *scopes: Scope, always: bool = False
) -> Callable[[Request, HTTPAuthorizationCredentials | None], Awaitable[ApiKey | None]]:
    """A dependency: 401 without a known key and 403 without one of the scopes, where keys are required or `always`.

    Gives the key that was sent; None where none is asked for.
    """

    sent = Security(ADMIN_KEY if always else API_KEY)

    async def check(request: Request, given: HTTPAuthorizationCredentials | None = sent) -> ApiKey | None:
        if not always and not request.app.state.keys_required:
            return None
        keys: ApiKeys = request.app.state.keys
        holder = keys.holder(given.credentials) if given is not None else None
        if holder is None:
            hint = f" (`python -m serving.keys make NAME --scope {scopes[-1]}` makes one)" if always else ""
            refusal = f"send a known API key: Authorization: Bearer KEY{hint}"
            raise HTTPException(401, refusal, {"WWW-Authenticate": "Bearer"})
        if not set(scopes) & set(holder.scopes):
            raise HTTPException(
                403, f"the key {holder.name!r} is not for {scopes[0]!r}, only for {list(holder.scopes)}"
            )
        return holder

    return check


def describe_keys(app: FastAPI) -> None:
    """Have the app's OpenAPI page say where a key is needed here, and not only where one can be sent."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if (known := app.openapi_schema) is not None:
            return known
        schema = described()
        operations = [operation for path in schema["paths"].values() for operation in path.values()]
        for operation in operations if not app.state.keys_required else []:
            if (security := operation.get("security")) == [{API_KEY.scheme_name: []}]:
                security.insert(0, {})  # nothing will do too
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def main() -> int:
    """Make, list or revoke keys; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m serving.keys", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="make a key and print it, once")
    making.add_argument("name")
    making.add_argument("--scope", action="append", choices=get_args(Scope), required=True, help="may be given again")
    commands.add_parser("revoke", help="forget a key").add_argument("name")
    commands.add_parser("list", help="names and scopes")
    asked = parser.parse_args()
    keys = ApiKeys(Settings().keys_file)
    try:
        if asked.command == "make":
            print(keys.make(asked.name, asked.scope))
        elif asked.command == "revoke":
            keys.revoke(asked.name)
        else:
            for one in keys.all():
                print(f"{one.name:<24} {','.join(one.scopes):<24} made {one.made_at:%Y-%m-%d %H:%M}")
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
