#!/bin/sh
# Makes the database at the first start, with what init.d says.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	chmod 700 "$PGDATA"
	initdb --auth=trust --no-sync >/dev/null
	echo 'host all all all trust' >>"$PGDATA/pg_hba.conf"
	pg_ctl -w -o '-c listen_addresses=' start >/dev/null
	for f in /docker-entrypoint-initdb.d/*.sql; do psql -q -v ON_ERROR_STOP=1 -f "$f"; done
	pg_ctl -w stop >/dev/null
fi
exec "$@"
