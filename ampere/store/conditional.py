"""A small file of an object store that is written only if nobody else has written it.

Stores compare and write in one step: `If-None-Match: *` creates a file that must not be there yet,
`If-Match: ETAG` replaces the one that was read. That is all that a lease needs.
"""

import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az")
REQUEST_S = timedelta(seconds=10)  # of one request; also how long a signal may wait for it
PATIENCE_S = 120.0  # how long a store may be away
PAUSE_S = 1.0  # between two attempts
Result = TypeVar("Result")


class ConditionalFile:
    """A small file that several processes replace.

    Args:
        uri: of the file, in an object store.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._folder, self._name = uri.rsplit("/", 1)

    def read(self) -> "tuple[bytes, UpdateVersion] | None":
        """The content and its version; None if there is no file.

        Raises:
            OSError: the store refuses, or does not answer.
        """
        import obstore

        def get() -> "tuple[bytes, UpdateVersion] | None":
            try:
                found = obstore.get(self._store, self._name)
                return bytes(found.bytes()), _version(dict(found.meta))
            except FileNotFoundError:
                return None

        return self._patiently(get)

    def write(
        self, data: bytes, replaced: "UpdateVersion | None", patience_s: float = PATIENCE_S
    ) -> "UpdateVersion | None":
        """Replace one version of the file.

        Args:
            data: the new content, unlike that of any other write.
            replaced: the version to replace; None: there must be no file.
            patience_s: how long the store may be away.

        Returns:
            The new version; None: another process has written the file.

        Raises:
            OSError: the store refuses, or does not answer.
        """

        def put() -> "UpdateVersion | None":
            version = self._put(data, replaced)
            # A repeated request conflicts with the first one, if only its answer was lost.
            if version is None and (found := self.read()) is not None and found[0] == data:
                return found[1]
            return version

        return self._patiently(put, patience_s)

    def check_conditions(self, data: bytes, version: "UpdateVersion") -> None:
        """Check, by writes that must fail, that the store looks at the conditions.

        Args:
            data: the content.
            version: of the file.

        Raises:
            ValueError: it does not, so that it gives no protection.
        """
        other: UpdateVersion = {"e_tag": f'"{uuid.uuid4().hex}"'}
        if "version" in version:
            other["version"] = "1"
        for condition, replaced in (("If-None-Match", None), ("If-Match", other)):
            if self._patiently(partial(self._put, data, replaced)) is not None:
                raise ValueError(
                    f"the store of {self.uri} ignores {condition}, so that two jobs could write "
                    "one table at once. Use a store with conditional writes (Amazon S3 and most "
                    "servers of its protocol have them), or a local workspace"
                )

    def _put(self, data: bytes, replaced: "UpdateVersion | None") -> "UpdateVersion | None":
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if replaced is None else replaced
        try:
            return _version(dict(obstore.put(self._store, self._name, data, mode=mode)))
        except (AlreadyExistsError, PreconditionError):
            return None
        except FileNotFoundError as error:
            if replaced is None:
                cause = str(error).splitlines()[0]
                raise OSError(f"cannot write {self.uri}: {cause}") from error  # no such bucket
            return None  # somebody has deleted the file

    def _patiently(self, request: Callable[[], Result], patience_s: float = PATIENCE_S) -> Result:
        """Repeat a request while the store is away."""
        from obstore.exceptions import BaseError, GenericError

        end = time.monotonic() + patience_s
        while True:
            try:
                return request()
            except BaseError as error:
                # GenericError: no connection, no answer in time, or status 5xx.
                if not isinstance(error, GenericError) or time.monotonic() + PAUSE_S >= end:
                    cause = str(error).splitlines()[0]  # the other lines are the library's
                    raise OSError(f"cannot read or write {self.uri}: {cause}") from error
            time.sleep(PAUSE_S)

    @cached_property
    def _store(self) -> "ObjectStore":
        """The folder that the file is in.

        Raises:
            ValueError: the scheme is another one.
        """
        scheme = self.uri.split("://", 1)[0]
        if scheme not in SCHEMES:
            raise ValueError(
                f"{self.uri}: {scheme}:// has no lock that ampere knows; expected a workspace in "
                f"a local folder or at {', '.join(f'{name}://' for name in SCHEMES)}"
            )
        from obstore.store import from_url

        options: dict[str, Any] = {
            "client_options": {
                "timeout": REQUEST_S,
                "connect_timeout": REQUEST_S / 2,
                "allow_http": True,  # where the endpoint that the user has set is one
            },
            "retry_config": {"max_retries": 3, "retry_timeout": REQUEST_S},
        }
        if scheme == "s3":
            options["credential_provider"] = _s3_credentials(self.uri)
        return from_url(self._folder, **options)


def _s3_credentials(uri: str) -> Any:
    """Credentials where s3fs finds them: the environment, profiles, the role of the machine.

    Raises:
        PermissionError: there are none.
    """
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError as error:
        raise PermissionError(
            f"no credentials for {uri}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a "
            "profile, or a role of this machine"
        ) from error


def _version(fields: dict[str, Any]) -> "UpdateVersion":
    """What names a version of a file: its etag, and a number where the store has one."""
    named = {name: fields[name] for name in ("e_tag", "version") if fields.get(name)}
    return cast("UpdateVersion", named)
