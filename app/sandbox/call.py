"""A request as the protocol reads it: credentials and parameters, without the transport."""

from __future__ import annotations

from dataclasses import dataclass

from app.sandbox.tokens import Refused


@dataclass(frozen=True)
class Call:
    """`fields` are those of the query or of the form body, in their order, without the empty ones.

    A parameter sent without a value counts as omitted (RFC 6749 section 3.1). `fields` is None where a body was
    sent that is not a form.
    """

    authorization: str | None
    fields: tuple[tuple[str, str], ...] | None

    def first(self, name: str) -> str | None:
        """The first value of a parameter, for looking only: `form` is what refuses repetition."""
        return next((value for key, value in self.fields or () if key == name), None)

    def only(self, name: str) -> str | None:
        """The value of a parameter sent exactly once, None otherwise."""
        values = [value for key, value in self.fields or () if key == name]
        return values[0] if len(values) == 1 else None

    def presented(self) -> str:
        """The token this request is about, empty where there is none."""
        return self.first("refresh_token") or self.first("token") or self.bearer() or ""

    def form(self) -> dict[str, str]:
        """All parameters. Raises `Refused` where one came twice (RFC 6749 section 3.2) or the body is no form."""
        if self.fields is None:
            raise Refused("invalid_request", "the body must be application/x-www-form-urlencoded")
        form = dict(self.fields)
        if len(form) < len(self.fields):
            raise Refused("invalid_request", "a parameter was sent more than once")
        return form

    def bearer(self) -> str | None:
        """The bearer token of the Authorization header, the only place it may be in (RFC 6750 section 2.1)."""
        scheme, _, token = (self.authorization or "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None


def required(form: dict[str, str], name: str) -> str:
    """The parameter. Raises `Refused` where it is missing."""
    if name not in form:
        raise Refused("invalid_request", f"{name} is missing")
    return form[name]
