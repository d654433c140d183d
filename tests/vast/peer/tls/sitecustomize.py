"""The official worker reads its certificate at a fixed path under /etc; instances of the host marketplace share one
/etc.

For these tests only, the two paths lead to the instance's own disk. The package is unchanged.
"""

import ssl

_load = ssl.SSLContext.load_cert_chain


def _from_own_disk(self, certfile, keyfile=None, password=None):
    own = {"/etc/instance.crt": "instance.crt", "/etc/instance.key": "instance.key"}
    return _load(self, own.get(certfile, certfile), own.get(keyfile, keyfile), password)


ssl.SSLContext.load_cert_chain = _from_own_disk
