#!/bin/bash
# Starts the node in docker-compose.yaml with the Security plugin: its only user is admin, with the password of
# ADMIN_PASSWORD. The plugin reads these files once, into an index; the password may not change after the first start.
set -euo pipefail

home=${OPENSEARCH_HOME:-/usr/share/opensearch}
folder=$home/config/opensearch-security
hash=$("$home/plugins/opensearch-security/tools/hash.sh" -env ADMIN_PASSWORD | grep -o '\$2.*' | tail -n 1)

cat >"$folder/internal_users.yml" <<USERS
_meta: {type: internalusers, config_version: 2}
admin: {hash: "$hash", reserved: true, backend_roles: [admin]}
USERS
cat >"$folder/roles_mapping.yml" <<MAPPING
_meta: {type: rolesmapping, config_version: 2}
all_access: {reserved: true, backend_roles: [admin]}
MAPPING
cat >"$folder/config.yml" <<LOGIN
_meta: {type: config, config_version: 2}
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
LOGIN

unset ADMIN_PASSWORD
exec "$@"
