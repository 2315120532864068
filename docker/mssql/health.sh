#!/usr/bin/env bash
# Healthy is: the login that lakegate uses gets in and sees tables, which fill.sh lets it do only when all is filled.
set -euo pipefail

if [ -n "${LAKEGATE_PASSWORD_FILE:-}" ]; then
    LAKEGATE_PASSWORD=$(cat "$LAKEGATE_PASSWORD_FILE")
fi
tables=$(SQLCMDPASSWORD=$LAKEGATE_PASSWORD sqlcmd -S localhost -U lakegate -C -b -x -l 5 -t 5 -h -1 -W -d ops \
    -Q "SET NOCOUNT ON; SELECT COUNT(*) FROM sys.tables" | tr -d '[:space:]')
[ "$tables" -gt 0 ]
