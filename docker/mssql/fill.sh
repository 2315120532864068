#!/usr/bin/env bash
# Builds and fills the database `ops` once: waits for the server, runs tables.sql, loads each <schema>.<table>.csv, and
# makes the login `lakegate` that may read it. A mark in the database says `begun` and at the end `whole`, so that
#   * a second start finds `whole` and leaves everything as it is;
#   * a start that was cut off is found by `begun`: what is there is dropped, and built anew;
#   * a database without a mark that holds something is somebody else's, and is left alone.
#
# CSV files: the first line names all columns in the table's order; a row is a line; an empty field is NULL; dates with
# times are written 2013-01-01 10:00:00; ASCII, as BULK INSERT on Linux takes no code page.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
folder=${DATA_FOLDER:-/srv/ops}
wait_seconds=${WAIT_SECONDS:-180}
database=ops

say() { echo "fill: $*" >&2; }
fail() { say "$*"; exit 1; }

# Runs sqlcmd as the administrator. The password is not among its arguments, where other processes would see it. The
# server's certificate is its own and nobody's to check: the way to it is inside this container.
sql() { SQLCMDPASSWORD=$MSSQL_SA_PASSWORD sqlcmd -S localhost -U sa -C -b -I -l 5 "$@"; }

# The one value that the query $2 gives in the database $1.
value() { sql -d "$1" -x -h -1 -W -Q "SET NOCOUNT ON; $2" | tr -d '\r\n'; }

run() { sql -d "$1" -x -Q "SET NOCOUNT ON; $2"; }

# A name or text as T-SQL writes it between its quotes.
bracketed() { printf '%s' "${1//]/]]}"; }
quoted() { printf '%s' "${1//\'/\'\'}"; }

await_server() {
    local until=$((SECONDS + wait_seconds))
    while [ "$SECONDS" -lt "$until" ]; do
        # `ops` is there before it has recovered.
        case $(value master "SELECT ISNULL(CONVERT(varchar(20), DATABASEPROPERTYEX(N'$database', 'Status')), 'ABSENT')" \
            2>/dev/null || true) in
            ONLINE | ABSENT) return 0 ;;
        esac
        sleep 1
    done
    fail "no answer to sa within $wait_seconds s. The password of sa is that of the first start; the server may need 2 GB"
}

exists() { [ "$(value master "SELECT ISNULL(DB_ID(N'$database'), 0)")" != 0 ]; }

mark() {
    value "$database" "SELECT ISNULL((SELECT CONVERT(varchar(20), value) FROM sys.extended_properties
        WHERE class = 0 AND name = N'filled'), 'none')"
}

clear_the_way() {
    exists || return 0
    case $(mark) in
        begun) say "the last filling was cut off: building $database anew" ;;
        none)
            local objects
            objects=$(value "$database" "SELECT COUNT(*) FROM sys.objects WHERE is_ms_shipped = 0")
            [ "$objects" = 0 ] || fail "there is a database $database with $objects objects that was not made here; left as it is"
            ;;
        *) fail "the mark of $database is not understood; left as it is" ;;
    esac
    run master "ALTER DATABASE [$database] SET SINGLE_USER WITH ROLLBACK IMMEDIATE; DROP DATABASE [$database];"
}

# The table is $1, its file $2.
load() {
    local schema=${1%%.*} table=${1#*.} header columns name lines rows
    name="[$(bracketed "$schema")].[$(bracketed "$table")]"
    header=$(head -n 1 "$2" | tr -d '\r')
    columns=$(value "$database" "SELECT STRING_AGG(CONVERT(nvarchar(max), name), ',') WITHIN GROUP (ORDER BY column_id)
        FROM sys.columns WHERE object_id = OBJECT_ID(N'$(quoted "$name")')")
    [ "$header" = "$columns" ] || fail "$2 begins with ($header); the columns of $name are ($columns), in this order"
    # Carriage returns would become part of the last column.
    ! grep -q $'\r' "$2" || fail "$2 has lines that end as on Windows; write it with line feeds alone"
    run "$database" "BULK INSERT $name FROM N'$(quoted "$2")' WITH (FORMAT = 'CSV', FIRSTROW = 2, FIELDTERMINATOR = ',',
        ROWTERMINATOR = '0x0a', KEEPNULLS, CHECK_CONSTRAINTS, MAXERRORS = 0, TABLOCK)"
    lines=$(($(grep -c '' "$2") - 1))
    rows=$(value "$database" "SELECT COUNT_BIG(*) FROM $name")
    [ "$rows" = "$lines" ] || fail "$2 has $lines rows, and $rows of them arrived in $name"
    say "$name: $rows rows"
}

build() {
    run master "CREATE DATABASE [$database]"
    run "$database" "EXEC sys.sp_addextendedproperty @name = N'filled', @value = N'begun'"
    sql -d "$database" -x -i "$folder/tables.sql"
    local file
    for file in "$folder"/*.csv; do
        [ -e "$file" ] || fail "there are no CSV files in $folder"
        load "$(basename "$file" .csv)" "$file"
    done
    run "$database" "EXEC sys.sp_updateextendedproperty @name = N'filled', @value = N'whole'"
    say "$database is filled"
}

await_server
if exists && [ "$(mark)" = whole ]; then
    say "$database was filled before"
else
    clear_the_way
    build
fi
# Each statement of it changes only what is not so yet. Last, so that the login can do nothing before all is there.
LAKEGATE_PASSWORD=$(quoted "$LAKEGATE_PASSWORD") sql -d "$database" -i "$here/login.sql"
