"""The operator's proxy for processes that call the internet. Loopback is never proxied."""

from collections.abc import Mapping

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def proxy_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables of the environment, with loopback added to both spellings of NO_PROXY; empty without them."""
    proxies = {name: environ[name] for name in _PROXIES if environ.get(name)}
    if not proxies:
        return {}
    excluded = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    hosts = [each.strip() for each in excluded.split(",") if each.strip()]
    hosts += [each for each in _LOOPBACK if each not in hosts]
    return proxies | {"NO_PROXY": ",".join(hosts), "no_proxy": ",".join(hosts)}
