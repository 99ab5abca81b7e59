"""Which schedulers are trusted: whoever answers there runs code on the workers and here."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from iresnet_verify.subject.errors import SubjectError


@dataclass(frozen=True)
class Trust:
    """How a scheduler is trusted: by certificates (all three, as files), or because the user says so."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False


UNTOLD = Trust()


def require_trust(scheduler: str, trust: Trust) -> None:
    """Refuse what nobody has vouched for: whoever answers there runs code on the workers and here.

    Raises `SubjectError` for a scheduler on another machine that is not reached by TLS, unless `trust.insecure`, and for TLS without
    its three files.
    """
    files = (trust.ca, trust.certificate, trust.key)
    if any(files) != all(files) or (scheduler.startswith("tls://") and not all(files)):
        raise SubjectError(f"--scheduler {scheduler}: expected --tls-ca, --tls-cert and --tls-key together for TLS; give all three")
    if all(files) and not scheduler.startswith("tls://"):
        raise SubjectError(f"--scheduler {scheduler}: expected an address tls://HOST:PORT with certificates; correct the address")
    protocol, _, rest = scheduler.rpartition("://")
    host = rest.rpartition(":")[0].strip("[]") or rest
    local = scheduler == "local" or protocol in ("inproc", "unix") or _is_loopback(host)
    if not (local or all(files) or trust.insecure):
        raise SubjectError(
            f"--scheduler {scheduler}: expected TLS for a scheduler that is not on this machine, got plain {protocol or 'tcp'}: anyone "
            "on the way could run code; use tls:// with certificates, or --insecure where the network itself is trusted")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
