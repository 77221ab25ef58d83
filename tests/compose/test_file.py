"""docker-compose.yaml and the files that it names. No container engine runs here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet

from include.local_stack import opensearch, opensearch_security
from include.local_stack.egress_certificates import jvm_flags
from tests.compose.compose_file import FILE, ROOT, check_command, compose_services, new_secrets

COMPOSE = ROOT / "include" / "compose"
NODE_CONFIG = Path("/usr/share/opensearch/config")
ONE_SHOT = {"airflow-init", "certificates"}


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    """New secrets."""
    return new_secrets(tmp_path)


@pytest.fixture
def services(secrets: dict[str, str]) -> dict[str, Any]:
    """The services of the file."""
    return compose_services(secrets)


def test_the_file_is_valid() -> None:
    """It validates against the compose specification's schema."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - our own file
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_docker_compose_accepts_the_file(secrets: dict[str, str]) -> None:
    """Where Docker Compose is installed, it resolves the file to the services that the other tests see."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:  # noqa: S603 - asks for a version
        pytest.skip("Docker Compose is not installed")
    command = [docker, "compose", "--file", str(FILE), "config", "--format", "json"]
    done = subprocess.run(  # noqa: S603 - resolves our own file, starts nothing
        command, env={**os.environ, **secrets}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout)["services"], compose_services(secrets)
    assert found.keys() == expected.keys()
    for name, service in expected.items():
        # Compose writes a dollar sign twice, as the file has it.
        environment = {key: each.replace("$$", "$") for key, each in (found[name].get("environment") or {}).items()}
        assert environment == {key: str(each) for key, each in (service.get("environment") or {}).items()}


def test_every_secret_is_new_and_has_a_name_of_its_own(secrets: dict[str, str], tmp_path: Path) -> None:
    """A developer's AWS keys are in variables of other names; a second start keeps the secrets that volumes have."""
    names = set(re.findall(r"(?<!\$)\$\{(\w+)", FILE.read_text()))
    assert names == secrets.keys()
    assert all(name.startswith("LOCAL_") for name in names)
    assert len(set(secrets.values())) == len(secrets)
    Fernet(secrets["LOCAL_FERNET_KEY"])
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert new_secrets(tmp_path) == secrets
    (tmp_path / ".env").write_text("OWN=1\n")
    assert new_secrets(tmp_path).keys() == {"OWN", *secrets}


def test_every_service_is_checked_and_started_again(services: dict[str, Any]) -> None:
    """What prepares the others ends; it is repeated if it fails."""
    for name, service in services.items():
        assert service["restart"] == ("on-failure" if name in ONE_SHOT else "always"), name
        assert name in ONE_SHOT or check_command(service), name


def test_nothing_is_installed_at_start_and_nothing_listens_beyond_this_machine(services: dict[str, Any]) -> None:
    """Images have versions; only what a person opens has a port, on loopback."""
    for service in services.values():
        assert "pip" not in json.dumps(service.get("command", ""))
        assert "_PIP_ADDITIONAL_REQUIREMENTS" not in (service.get("environment") or {})
        assert re.fullmatch(r"[\w./-]+:(v?\d[\w.-]*|local)", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert sum(len(service.get("ports", [])) for service in services.values()) == 3


def test_the_image_installs_by_hashes_what_the_tests_run_with() -> None:
    """Each file that it copies exists, and its context has no other."""
    text = (COMPOSE / "Dockerfile").read_text()
    installs = re.findall(r"pip install .*?(?=&&|\n\n|\n#)", text, re.DOTALL)
    assert len(installs) == 2
    assert all("--require-hashes" in install for install in installs)
    assert "-c requirements.lock" in installs[1]
    sources = [name for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for name in line.split()[:-1]]
    assert all((ROOT / name).exists() for name in sources)
    kept = re.findall(r"^!(.+)$", (COMPOSE / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert {name.split("/")[0] for name in sources} == set(kept)
    assert text.splitlines()[-1] == "USER 1000"


def test_the_file_mounts_what_exists(services: dict[str, Any]) -> None:
    """A folder that is missing would be created, empty, by the engine."""
    volumes = yaml.safe_load(FILE.read_text())["volumes"]
    for service in services.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in volumes or (ROOT / source).exists(), source


def test_the_node_has_the_settings_of_the_local_stack(services: dict[str, Any]) -> None:
    """Those that tests run with: the Security plugin, ML Commons, and the way out."""
    settings = yaml.safe_load((COMPOSE / "opensearch.yml").read_text())
    expected = yaml.safe_load(opensearch.ML_SETTINGS) | yaml.safe_load(opensearch_security.SETTINGS)
    assert {key: settings.get(key) for key in expected} == expected
    node = services["opensearch"]["environment"]
    assert set(jvm_flags(NODE_CONFIG / "certificates", 9401)) <= set(node["OPENSEARCH_JAVA_OPTS"].split())
    assert "DISABLE_SECURITY_PLUGIN" not in node


def test_the_node_starts_with_one_user_whose_password_is_hashed(tmp_path: Path) -> None:
    """The script writes the three files of the Security plugin, and starts the node without the password."""
    tools, folder = tmp_path / "plugins" / "opensearch-security" / "tools", tmp_path / "config" / "opensearch-security"
    tools.mkdir(parents=True)
    folder.mkdir(parents=True)
    # What the plugin's own program prints: a warning, then the hash of the variable that is named.
    (tools / "hash.sh").write_text(
        '#!/bin/sh\necho "WARNING: JAVA_HOME"\necho "\\$2y\\$12\\$hash.of-${ADMIN_PASSWORD}-$1-$2"\n'
    )
    (tools / "hash.sh").chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "OPENSEARCH_HOME": str(tmp_path), "ADMIN_PASSWORD": "secret"}
    command = [
        str(COMPOSE / "opensearch.sh"),
        sys.executable,
        "-c",
        "import os; print(os.environ.get('ADMIN_PASSWORD'))",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own script
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr
    users = yaml.safe_load((folder / "internal_users.yml").read_text())
    assert users["admin"] == {
        "hash": "$2y$12$hash.of-secret--env-ADMIN_PASSWORD",
        "reserved": True,
        "backend_roles": ["admin"],
    }
    for name, text in (("roles_mapping.yml", opensearch_security.MAPPING), ("config.yml", opensearch_security.LOGIN)):
        assert yaml.safe_load((folder / name).read_text()) == yaml.safe_load(text)
