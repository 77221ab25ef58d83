"""The Security plugin of the node: nobody calls it without a password, and no password leaves the stack's own files.

The node knows two people. `admin` may do everything; the stack itself signs in as admin. `worker` is the user of
Airflow's connection, and may do what `worker_role.json` says and no more.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography import x509

from include.local_stack.certificates import (
    SERVER_AND_CLIENT,
    Authority,
    certificate_pem,
    is_fresh,
    key_pem,
    read,
)
from include.local_stack.settings import LOOPBACK, StackError
from include.local_stack.state import Credentials, write_private

PLUGIN = "opensearch-security"
ADMIN, WORKER, WORKER_ROLE = "admin", "worker", "opensearch_batch_worker"
ROLE_FILE = Path(__file__).parent / "worker_role.json"
AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.pem", "node.pem", "node-key.pem"
# Paths are relative to the node's config folder. Transport has no off switch: it shows the same certificate.
SETTINGS = """plugins.security.ssl.transport.pemcert_filepath: certificates/node.pem
plugins.security.ssl.transport.pemkey_filepath: certificates/node-key.pem
plugins.security.ssl.transport.pemtrustedcas_filepath: certificates/ca.pem
plugins.security.ssl.transport.enforce_hostname_verification: false
plugins.security.ssl.http.enabled: true
plugins.security.ssl.http.pemcert_filepath: certificates/node.pem
plugins.security.ssl.http.pemkey_filepath: certificates/node-key.pem
plugins.security.allow_default_init_securityindex: true
plugins.security.restapi.roles_enabled: ["all_access"]
plugins.security.system_indices.enabled: true
plugins.security.system_indices.indices: [".plugins-ml-config", ".plugins-ml-connector", ".plugins-ml-controller",
  ".plugins-ml-model-group", ".plugins-ml-model", ".plugins-ml-task", ".ml_commons_task_polling_job",
  ".opendistro-job-scheduler-lock"]
"""
LOGIN = """_meta: {type: config, config_version: 2}
config:
  dynamic:
    http: {anonymous_auth_enabled: false}
    authc:
      basic:
        http_enabled: true
        transport_enabled: true
        order: 0
        http_authenticator: {type: basic, challenge: true}
        authentication_backend: {type: intern}
"""
USERS = """_meta: {{type: internalusers, config_version: 2}}
{admin}: {{hash: "{hash}", reserved: true, backend_roles: [admin]}}
"""
MAPPING = """_meta: {type: rolesmapping, config_version: 2}
all_access: {reserved: true, backend_roles: [admin]}
"""


def certificates_of(home: Path) -> Path:
    """Where a stack keeps its node's certificates."""
    return home / "opensearch_certificates"


def authority_file(home: Path) -> Path:
    """The file that clients of the node trust (`ca_certs`)."""
    return certificates_of(home) / AUTHORITY_FILE


def ensure_certificates(folder: Path, names: Sequence[str] = ("localhost",)) -> None:
    """Make authority, certificate and key for loopback and these names unless valid ones lie there."""
    files = [folder / name for name in (AUTHORITY_FILE, KEY_FILE, CERTIFICATE_FILE)]
    if all(file.exists() for file in files) and is_fresh(read(folder / CERTIFICATE_FILE)):
        return
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority()
    alternatives = [*map(x509.DNSName, names), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
    certificate, key = authority.issue("local stack node", alternatives, usages=SERVER_AND_CLIENT)
    (folder / CERTIFICATE_FILE).unlink(missing_ok=True)
    write_private(folder / KEY_FILE, key_pem(key))
    (folder / AUTHORITY_FILE).write_bytes(certificate_pem(authority.certificate))
    # Last, since without it the others count for nothing.
    (folder / CERTIFICATE_FILE).write_bytes(certificate_pem(certificate))


def install(path: Path, java: Path, *, certificates: Path, admin_password: str) -> None:
    """Give an assembled node its certificates and, before its first start, its admin.

    The plugin reads its own folder once, into an index; that index lives and dies with the node.
    """
    ensure_certificates(certificates)
    own = path / "config" / "certificates"
    own.mkdir(mode=0o700, exist_ok=True)
    for name in (AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE):
        write_private(own / name, (certificates / name).read_bytes())
    folder = path / "config" / PLUGIN
    if (folder / "internal_users.yml").exists():
        return
    # Its own roles and action groups hold ml_full_access and the like; its own users have known passwords.
    shutil.copytree(path / "plugins" / PLUGIN / "config", folder, dirs_exist_ok=True, ignore=_users_of_the_archive)
    (folder / "config.yml").write_text(LOGIN)
    (folder / "roles_mapping.yml").write_text(MAPPING)
    users = USERS.format(admin=ADMIN, hash=_password_hash(path, java, admin_password))
    write_private(folder / "internal_users.yml", users.encode())


def worker_account(credentials: Credentials) -> list[tuple[str, object]]:
    """What to PUT, path and body, so that `worker` exists with its role: the same again changes nothing."""
    api = "/_plugins/_security/api"
    return [
        (f"{api}/roles/{WORKER_ROLE}", msgspec.json.decode(ROLE_FILE.read_bytes())),
        (f"{api}/internalusers/{WORKER}", {"password": credentials.opensearch_worker_password}),
        (f"{api}/rolesmapping/{WORKER_ROLE}", {"users": [WORKER]}),
    ]


def _users_of_the_archive(_folder: str, _names: list[str]) -> list[str]:
    return ["internal_users.yml", "roles_mapping.yml", "config.yml", "opensearch.yml.example"]


def _password_hash(path: Path, java: Path, password: str) -> str:
    """Bcrypt by the plugin's own program; the password travels in the environment, where no `ps` shows it."""
    jars = f"{path}/plugins/{PLUGIN}/*:{path}/lib/*"
    answer = subprocess.run(
        [java, "-cp", jars, "org.opensearch.security.tools.Hasher", "-env", "PASSWORD"],
        env={"PATH": os.environ.get("PATH", os.defpath), "PASSWORD": password},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [word for word in answer.stdout.split() if word.startswith("$2")]
    if not found:
        raise StackError(f"{path}: the Security plugin's Hasher failed: {answer.stderr.strip()[-500:]}")
    return found[0]
