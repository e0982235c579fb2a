"""What the endpoint says to people: sentences with codes, by which the page translates them.

`serve/page/said_zh.js` has each of them in Chinese.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Value = str | int | float

# Code -> sentence. Programs may rely on the codes. A reason is another program's sentence.
MESSAGES = {
    # Errors of a request.
    "request.invalid": "{reason}",
    "request.refused": "{reason}",
    "field.invalid": "{where}: {reason}",
    "body.type": "content-type is {got}; expected {expected}",
    "body.json": "the body is not valid JSON: {reason}",
    "body.object": "the body is a {got}; expected an object",
    "body.unicode": "a text contains an unpaired surrogate (invalid Unicode)",
    "body.large": "the body has {size} bytes; expected at most {limit} (serve.max_upload_mb)",
    "body.stalled": "no byte of the body for {seconds} s",
    "form.file": "{name} is a file; expected the file in the field `file`",
    "form.text": "file is the text {got}; expected the contents of a file (with curl: file=@PATH)",
    "form.empty": "the file {name} is empty",
    "form.json": "{name} is {got}; expected JSON",
    "batch.line": "line {line} has over {limit} bytes",
    "batch.lines": "the batch has over {limit} lines; send it in several parts",
    "file.base64": "{name} is not valid base64: {reason}",
    "file.large": "the file has {size} bytes; expected at most {limit} (serve.max_upload_mb)",
    "file.unreadable": "the file cannot be read: {reason}",
    "file.twice": "the query has both a file and media_uri; expected one of them",
    "uri.unreadable": "media_uri cannot be read: {reason}",
    "uri.store": "media_uri {uri} is in no allowed store ({allowed})",
    "uri.status": "media_uri {uri} answered with status {got}; expected 200 (redirects are not "
    "followed)",
    "uri.large": "the file at media_uri has over {limit} bytes",
    "uri.host": "media_uri names the host {host}, which is unknown",
    "uri.private": "media_uri names the host {host}, which has a private address; the operator may "
    "list it in serve.private_hosts",
    "model.unknown": "model is {model}; served are {served}",
    "embed.parts": "expected a file, text, or both; sample_id and vector have vectors",
    "moment.parts": "the query is empty, or has words alone and this model reads no text",
    "vector.size": "vector has {got} numbers; expected {expected}",
    "sample.empty": "sample {sample} has no file, text or vector; give one",
    # What is not there.
    "sample.missing": "no sample {sample}",
    "frames.missing": "sample {sample} has no frames",
    "times.missing": "sample {sample} ({domain}) has no frames with times",
    "frame.missing": "sample {sample} has {count} frames, from 0",
    "media.missing": "sample {sample} has {count} files, from 0",
    "media.gone": "the file is not where the catalog had it",
    "media.unreadable": "the file cannot be read: {reason}",
    "media.range": "the range {range} is malformed, or beyond the file's {size} bytes",
    "judgment.missing": "no judgment {judgment}; it may have been taken back",
    "route.missing": "no route {path}; /openapi.json lists the routes",
    "page.missing": "the page has no file {name}",
    # Keys.
    "key.missing": "no API key; send the header `Authorization: Bearer KEY` (see `ampere keys`)",
    "key.unknown": "the API key is unknown; `ampere keys list` shows the known keys",
    "key.reads": "key {key} has the role read; this needs a key of role admin",
    # Load.
    "busy.key": "this key has {limit} requests in progress, which is its limit "
    "(serve.max_per_client); wait for one of them",
    "busy": "the endpoint works on {limit} requests, which is its limit (serve.max_concurrent); "
    "try again",
    "late": "no answer within {seconds} s (serve.request_timeout_s); try again, with less at once",
    "stopping": "the endpoint is stopping; try again",
    "starting": "a deployment of the endpoint is starting; try again",
    "starting.model": "model {model} is loading; try again",
    "starting.all": "the deployments do not answer within {seconds} s",
    "disk.full": "the server's disk is full; its operator has to free some space",
    "bug": "{kind} on the server. Its log has the reason under this request id; please report it",
    # Notes of an answer: what the search went without.
    "transcriber.busy": "the transcriber has too many requests; searched by picture",
    "transcriber.late": "the transcriber did not answer within {seconds} s; searched by picture",
    "transcriber.failed": "the transcriber failed ({reason}); searched by picture",
    "summarizer.busy": "the summarizer has too many requests; used the transcript as it is",
    "summarizer.late": "the summarizer did not answer within {seconds} s; used the transcript as "
    "it is",
    "summarizer.failed": "the summarizer failed ({reason}); used the transcript as it is",
    "summarizer.missing": "no summarizer is configured; used the transcript as it is",
    "speech.none": "no speech was heard in the clip; searched by picture",
    "product.none": "the transcript names no product; used the transcript as it is",
    "product.none.picture": "the transcript names no product; searched by picture",
}


@dataclass(frozen=True)
class Message:
    """A sentence of the endpoint.

    Attributes:
        code: stable, for programs and translations.
        text: in English.
        values: of the sentence.
    """

    code: str
    text: str
    values: Mapping[str, Value]

    def answer(self) -> dict[str, Any]:
        """The message as JSON."""
        return {"code": self.code, "message": self.text, "values": dict(self.values)}


def message(code: str, **values: Value) -> Message:
    """The message of a code.

    Raises:
        KeyError: there is no such code, or a value of its sentence is missing.
    """
    return Message(code, MESSAGES[code].format_map(values), values)
