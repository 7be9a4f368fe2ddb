"""Whether a certificate of our own has expired: asked when a connection was refused."""

import datetime as dt
from pathlib import Path
from typing import Final

from cryptography import x509

_BYTES_MAX: Final = 1 << 20


def expired_at(path: Path | None) -> dt.datetime | None:
    """When the certificate in a PEM file has expired; None if it has not, or there is none that can be read."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            certificate = x509.load_pem_x509_certificate(file.read(_BYTES_MAX))
    except (OSError, ValueError):
        return None
    end = certificate.not_valid_after_utc
    return end if end < dt.datetime.now(dt.UTC) else None
