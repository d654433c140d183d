"""The state folder: keys, its original place, and the space on its disk."""

import os
import shutil
from collections.abc import AsyncIterator

from run.errors import CommandError
from run.settings import DeploymentSettings
from run.state_folder.identity import read_identity, require_original
from run.state_folder.keys import load_keys
from stoker.cli.overview.findings import Finding, found

FREE_BYTES_MIN = 500_000_000
"""Below this, Temporal's database and the logs can fill the disk within a day."""
FREE_SHARE_MIN = 0.05
FILES_MIN = 10_000
"""Free inodes."""
SECRET_BYTES_MIN = 16
"""A shorter HMAC secret can be guessed from one worker token."""


async def check_keys(settings: DeploymentSettings) -> AsyncIterator[Finding]:
    """The keys that each role would load."""
    remedy = "set the variable, correct the file, or run `stokerd dev` once to generate the keys"
    for role in ("engine", "worker", "market", "dashboard"):
        try:
            load_keys(settings.state_dir, generate=False, role=role, uses_vast=settings.uses_vast)
        except CommandError as fault:
            yield Finding("keys", "failed", f"{role}: {fault}", remedy)
            return
    keys = load_keys(settings.state_dir, generate=False, uses_vast=settings.uses_vast)
    if len(keys.secret) < SECRET_BYTES_MIN:
        yield Finding(
            "keys",
            "warning",
            f"the HMAC secret has {len(keys.secret)} bytes, fewer than {SECRET_BYTES_MIN}",
            "change it (STOKER_HMAC_SECRET), see docs/how-to/production.md for the rotation",
        )
        return
    if not keys.ca_key_pem:
        yield Finding(
            "keys",
            "warning",
            "complete, but without a certificate authority: workers get no certificates",
            "set STOKER_CA_KEY_FILE to a PEM file with an elliptic curve private key",
        )
        return
    rotating = (
        "; previous keys are still accepted" if keys.account_keys_previous or keys.secrets_previous else ""
    )
    yield Finding("keys", "ok", f"complete for every role{rotating}")


async def check_state_folder(settings: DeploymentSettings) -> AsyncIterator[Finding]:
    """Whether the folder is usable, is no copy, and has space."""
    folder = settings.state_dir
    if not folder.is_dir():
        yield Finding(
            "state folder",
            "warning",
            f"{folder} does not exist",
            "`stokerd dev` makes it; give the right settings file with --config",
        )
        return
    writable = os.access(folder, os.W_OK | os.X_OK)
    yield found(
        "state folder",
        "" if writable else f"{folder} is not writable for this user",
        str(folder),
        "run the command as the user of the deployment, or give it the folder (chown)",
    )
    try:
        require_original(folder)
        stored = read_identity(folder)
    except CommandError as fault:
        yield Finding(
            "identity", "failed", str(fault), 'see docs/how-to/operate.md, "Copy or move a state folder"'
        )
    else:
        yield Finding(
            "identity", "ok", stored.deployment if stored else "none yet; the first start stores it"
        )
    yield _space(settings)


def _space(settings: DeploymentSettings) -> Finding:
    folder = settings.state_dir
    disk, inodes = shutil.disk_usage(folder), os.statvfs(folder)
    share = disk.free / disk.total if disk.total else 1.0
    text = f"{disk.free / 1e9:.1f} GB ({share:.0%}) free at {folder}"
    remedy = "free some space, or move the folder to a larger disk (docs/how-to/operate.md)"
    if inodes.f_files and inodes.f_favail < FILES_MIN:
        return Finding("disk", "failed", f"{inodes.f_favail} files can still be created at {folder}", remedy)
    if disk.free < FREE_BYTES_MIN:
        return Finding("disk", "failed", f"only {text}", remedy)
    return (
        Finding("disk", "warning", f"only {text}", remedy)
        if share < FREE_SHARE_MIN
        else Finding("disk", "ok", text)
    )
