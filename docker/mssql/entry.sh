#!/usr/bin/env bash
# Starts SQL Server, fills the database when that has not been done, and ends when the server does. Signals to stop are
# handed on, so that the server ends cleanly. A filling that fails stops the server: a half-filled database is of no use.
#
# Passwords: MSSQL_SA_PASSWORD and LAKEGATE_PASSWORD, or MSSQL_SA_PASSWORD_FILE and LAKEGATE_PASSWORD_FILE with the
# names of files that hold them.
set -uo pipefail

here=$(dirname "$(readlink -f "$0")")
server=
fill=
signalled=
stopping=

# Sets the variable $1 from the file that $1_FILE names, where it names one.
from_file() {
    local file_variable=$1_FILE
    local file=${!file_variable:-}
    [ -n "$file" ] || return 0
    local value
    value=$(cat "$file") || { echo "entry: cannot read $file, which $file_variable names" >&2; exit 2; }
    export "$1=$value"
}

# shellcheck disable=SC2329  # run by the trap
stop() {
    signalled=yes
    stopping=yes
    # Whichever of them is not running is no concern.
    [ -z "$fill" ] || kill -TERM "$fill" 2>/dev/null
    [ -z "$server" ] || kill -TERM "$server" 2>/dev/null
}

# Waits for the child $1 to end, however many signals come meanwhile, and gives its exit status.
await() {
    local status last=0
    while true; do
        signalled=
        wait "$1"
        status=$?
        # 127: it has been waited for already, and what came before was its own status.
        [ "$status" -ne 127 ] || return "$last"
        [ -n "$signalled" ] || return "$status"
        last=$status
    done
}

from_file MSSQL_SA_PASSWORD
from_file LAKEGATE_PASSWORD
for name in MSSQL_SA_PASSWORD LAKEGATE_PASSWORD; do
    [ -n "${!name:-}" ] || { echo "entry: $name is not set; docs/sqlserver.md tells what it has to be" >&2; exit 2; }
done

trap stop TERM INT
"${@:-/opt/mssql/bin/sqlservr}" &
server=$!
"$here/fill.sh" &
fill=$!
# The server may end first; fill.sh then gives up by itself after WAIT_SECONDS, or is stopped here.
while kill -0 "$fill" 2>/dev/null; do
    if ! kill -0 "$server" 2>/dev/null; then
        kill -TERM "$fill" 2>/dev/null
        break
    fi
    sleep 1 &
    wait $!
done
await "$fill"
filled=$?
fill=
if [ "$filled" -ne 0 ] && [ -z "$stopping" ] && kill -0 "$server" 2>/dev/null; then
    echo "entry: the database was not filled; the server is stopped, and the next start tries again" >&2
    kill -TERM "$server" 2>/dev/null
fi
await "$server"
ended=$?
# The server's own end tells more than that the filling ended with it.
[ "$filled" -eq 0 ] || [ -n "$stopping" ] || [ "$ended" -ne 0 ] || exit "$filled"
exit "$ended"
