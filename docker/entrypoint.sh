#!/bin/sh
# Runs cdc, and again after a pause if it ends with 1, which means that it may be restarted. Docker's own policies do not
# look at the code: they would restart what needs an operator (3), or another command line (2), for good.
trap 'stopping=1; kill -TERM "$child" 2>/dev/null' TERM INT HUP
stopping=
while :; do
    cdc "$@" &
    child=$!
    wait "$child"
    code=$?
    while kill -0 "$child" 2>/dev/null; do # a signal has ended the waiting, and not yet cdc
        wait "$child"
        code=$?
    done
    [ "$code" -eq 1 ] && [ "$1" = run ] && [ -z "$stopping" ] || exit "$code"
    sleep "${CDC_RESTART_AFTER:-5}" &
    child=$!
    wait "$child"
    [ -z "$stopping" ] || exit 0
done
