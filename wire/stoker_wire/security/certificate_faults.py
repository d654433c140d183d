"""Says what is wrong with a server's certificate, from the exception of a failed TLS handshake."""

import ssl

_REASONS = {
    9: "it is not valid yet; is the clock of this machine right?",
    10: "it has expired",
    18: "it is self-signed, and its issuer is unknown here",
    19: "its issuer is unknown here",
    20: "its issuer is unknown here",
    21: "its issuer is unknown here",
    62: "it is for another host",
    64: "it is for another IP address",
}
"""By OpenSSL's codes of verification errors (X509_V_ERR_…)."""


def certificate_fault(fault: BaseException) -> str | None:
    """Why the server's certificate was refused; None: the exception has another cause."""
    seen: set[int] = set()
    cause: BaseException | None = fault
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, ssl.SSLCertVerificationError):
            known = _REASONS.get(cause.verify_code)
            said = cause.verify_message or str(cause)
            return said if known is None else f"{known} ({said})"
        cause = cause.__cause__ or cause.__context__
    return None
