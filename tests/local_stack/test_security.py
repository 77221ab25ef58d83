"""`make up SECURITY=on`: the node asks everybody for a password, over TLS; no password leaves the stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import requests
from cryptography import x509

from include.local_stack import certificates, stack
from include.local_stack.airflow import connections
from include.local_stack.node_api import NodeAPI
from include.local_stack.opensearch import GUARD_NAME
from include.local_stack.opensearch_home import place_for
from include.local_stack.opensearch_security import ROLE_FILE, WORKER_ROLE, ensure_certificates
from include.local_stack.settings import LOOPBACK, StackError, StackOptions, choose_ports, options_from_environment
from include.local_stack.stack import Stack, addresses_of
from include.local_stack.state import Credentials, StackState, StateFile, credentials_of
from tests.security.secured import Secured
from tests.stored import present
from tests.waiting import WAIT_S

KEYS = Credentials("access", "secret", "admin-password", "worker-password")


@pytest.fixture
def options(tmp_path: Path) -> Iterator[StackOptions]:
    """A stack of S3 alone: a real process that starts fast."""
    options = StackOptions(home=tmp_path, services=frozenset({"s3"}), free_ports=True, security=True)
    yield options
    stack.down(tmp_path, say=lambda _: None)


@pytest.mark.parametrize(("text", "security"), [("on", True), ("off", False), ("", False)])
def test_a_variable_asks_for_it(text: str, *, security: bool) -> None:
    """It is off unless somebody asks for it."""
    assert options_from_environment({"SECURITY": text}).security is security


def test_another_word_is_refused() -> None:
    """Nobody believes to be secured because of a typing error."""
    with pytest.raises(StackError, match=r"SECURITY=yes: unknown\. Use SECURITY=on or SECURITY=off"):
        options_from_environment({"SECURITY": "yes"})


def test_a_version_without_the_plugin_is_refused() -> None:
    """The error says which version has it."""
    with pytest.raises(StackError, match=r"for OpenSearch 3\.6\.0 is not published\. Use OPENSEARCH_VERSION=2\.19\.1"):
        options_from_environment({"SECURITY": "on", "OPENSEARCH_VERSION": "3.6.0"})


def test_a_node_that_runs_is_neither_secured_nor_opened(options: StackOptions) -> None:
    """Either way `make down` comes first."""
    Stack.up(options, say=lambda _: None)
    file = StateFile(options.home)
    state = present(file.read())
    file.record("opensearch", state.processes["s3"])
    with pytest.raises(StackError, match=r"SECURITY=on, but SECURITY is off\. .* `make down`"):
        Stack.up(msgspec.structs.replace(options, security=False), say=lambda _: None)


def test_the_connection_signs_in_as_the_service_user() -> None:
    """Never as admin; the authority's file stands in the extra."""
    connection, *_ = connections(choose_ports(StackOptions()), KEYS, ca_certs=Path("/ca.pem"))
    assert (connection["login"], connection["password"]) == ("worker", "worker-password")
    assert json.loads(connection["extra"]) == {"use_ssl": True, "ca_certs": "/ca.pem"}


def test_addresses_say_https_and_whom_to_trust() -> None:
    """For the node alone: nothing else of the stack has TLS."""
    state = StackState("2.19.1", choose_ports(StackOptions()), "/", security=True)
    served = addresses_of(state, ["egress", "opensearch", "s3"], ca_certs=Path("/ca.pem"))
    assert (served.opensearch, served.s3) == ("https://127.0.0.1:9200", "http://127.0.0.1:9000")
    assert served.ca_certs == "/ca.pem"
    assert addresses_of(state, ["s3"], ca_certs=Path("/ca.pem")).ca_certs == ""


def test_older_credentials_get_what_they_lack(tmp_path: Path) -> None:
    """The key pair stays, passwords are added once, and no repr shows any of it."""
    (tmp_path / "credentials.json").write_text('{"access_key": "a", "secret_key": "the-secret"}')
    made = credentials_of(tmp_path)
    assert (made.access_key, made.secret_key) == ("a", "the-secret")
    assert credentials_of(tmp_path) == made
    passwords = {made.opensearch_admin_password, made.opensearch_worker_password}
    assert len(passwords) == 2
    assert not any(secret in repr(made) for secret in {*passwords, made.secret_key})
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_the_certificate_is_for_loopback_and_its_authority_forgets_its_key(tmp_path: Path) -> None:
    """Nobody can sign another one; the same files serve until they are about to expire."""
    ensure_certificates(tmp_path)
    leaf = certificates.read(tmp_path / "node.pem")
    leaf.verify_directly_issued_by(certificates.read(tmp_path / "ca.pem"))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == [LOOPBACK]
    assert {entry.name for entry in tmp_path.iterdir()} == {"ca.pem", "node.pem", "node-key.pem"}
    assert (tmp_path / "node-key.pem").stat().st_mode & 0o777 == 0o600
    ensure_certificates(tmp_path)
    assert certificates.read(tmp_path / "node.pem") == leaf


def test_a_lost_certificate_is_made_again_with_its_authority(tmp_path: Path) -> None:
    """Certificate and authority always fit each other."""
    ensure_certificates(tmp_path)
    before = certificates.read(tmp_path / "ca.pem")
    (tmp_path / "node.pem").unlink()
    ensure_certificates(tmp_path)
    authority = certificates.read(tmp_path / "ca.pem")
    assert authority != before
    certificates.read(tmp_path / "node.pem").verify_directly_issued_by(authority)


def test_nobody_is_answered_without_a_password(secured: Secured) -> None:
    """Nor over plain http."""
    url = secured.stack.addresses.opensearch
    with requests.Session() as stranger:
        stranger.trust_env = False
        assert stranger.get(url, verify=secured.stack.addresses.ca_certs, timeout=WAIT_S).status_code == 401
        with pytest.raises(requests.ConnectionError, match=r"Connection aborted|reset|closed"):
            stranger.get(url.replace("https", "http"), timeout=WAIT_S)


def test_the_authority_is_the_stacks_own(secured: Secured) -> None:
    """A client that trusts the system's authorities alone does not talk to the node."""
    with requests.Session() as stranger:
        stranger.trust_env = False
        with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            stranger.get(secured.stack.addresses.opensearch, timeout=WAIT_S)


def test_guard_and_service_user_are_there_once_the_stack_is_up(secured: Secured) -> None:
    """The role is the file's, and nobody else has it."""
    assert GUARD_NAME in secured.admin("GET", f"_template/{GUARD_NAME}")
    role = secured.admin("GET", f"_plugins/_security/api/roles/{WORKER_ROLE}")[WORKER_ROLE]
    wanted = json.loads(ROLE_FILE.read_text())
    assert sorted(role["cluster_permissions"]) == sorted(wanted["cluster_permissions"])
    (found,), (expected,) = role["index_permissions"], wanted["index_permissions"]
    assert sorted(found["allowed_actions"]) == sorted(expected["allowed_actions"])
    assert found["index_patterns"] == expected["index_patterns"]
    mapping = secured.admin("GET", f"_plugins/_security/api/rolesmapping/{WORKER_ROLE}")[WORKER_ROLE]
    assert (mapping["users"], mapping["backend_roles"]) == (["worker"], [])


def test_the_archives_users_are_not_the_nodes(secured: Secured) -> None:
    """Those of the plugin's own archive have passwords that everybody knows."""
    users = secured.admin("GET", "_plugins/_security/api/internalusers")
    assert {"admin", "worker"} <= users.keys()
    assert {name for name in users if not name.startswith("service-")} == {"admin", "worker"}


def test_up_again_finds_the_node_and_changes_nothing(secured: Secured) -> None:
    """Its health check signs in too."""
    said: list[str] = []
    options = StackOptions(home=secured.stack.home, services=frozenset({"opensearch"}), free_ports=True, security=True)
    assert Stack.up(options, say=said.append).addresses == secured.stack.addresses
    assert any(line.startswith("opensearch ") and "runs already" in line for line in said)


def test_passwords_stand_in_the_credentials_file_alone(secured: Secured) -> None:
    """Not in logs, addresses, state or the node's own folder, and not on any command line."""
    home, keys = secured.stack.home, secured.stack.credentials
    files = [path for root in (home, place_for(home) / "config") for path in root.rglob("*") if path.is_file()]
    for password in (keys.opensearch_admin_password, keys.opensearch_worker_password):
        assert {path.name for path in files if password.encode() in path.read_bytes()} == {"credentials.json"}


def test_a_failed_call_of_the_node_has_status_0(tmp_path: Path) -> None:
    """An authority's file that is not there, or nobody who listens: the health check goes on asking."""
    assert NodeAPI(9, "admin", "password", tmp_path / "ca.pem").call("GET", "/") == (0, {})
    assert NodeAPI(9).call("GET", "/") == (0, {})
    assert "password" not in repr(NodeAPI(9, "admin", "a-password"))


def test_the_nodes_files_are_private(secured: Secured) -> None:
    """The key that TLS rests on, and the hash of the admin's password."""
    config = place_for(secured.stack.home) / "config"
    for name in ("certificates/node-key.pem", "opensearch-security/internal_users.yml"):
        assert (config / name).stat().st_mode & 0o777 == 0o600
