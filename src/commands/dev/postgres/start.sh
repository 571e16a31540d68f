# The start of PostgreSQL, for guardian.sh.
# Arguments: the directory of the programs, the data directory, arguments of the server.
bin=$1 home=$2
shift 2
cluster=$home/cluster log=$home/server.log
printf '' >"$log"

# Made under another name: a half-made one must not pass for a whole one.
if [ ! -d "$cluster" ]; then
    rm -rf "$cluster.new"
    "$bin/initdb" -N -D "$cluster.new" -U postgres -A trust -E UTF8 --locale=C --no-instructions \
        >>"$log" 2>&1 </dev/null && mv "$cluster.new" "$cluster"
fi

# A server that outlived its guardian. The process id may have become anybody's, so the command line decides.
if [ -f "$cluster/postmaster.pid" ]; then
    read -r old <"$cluster/postmaster.pid"
    case "$({ tr '\0' ' ' <"/proc/$old/cmdline" || ps -ww -o args= -p "$old"; } 2>/dev/null)" in
        *postgres*" $cluster "*) "$bin/pg_ctl" stop -D "$cluster" -m fast -w -t 60 >>"$log" 2>&1 </dev/null 9>&- ;;
        *) rm -f "$cluster/postmaster.pid" ;;
    esac
fi

if [ -d "$cluster" ]; then
    "$bin/postgres" -D "$cluster" -k "$run" "$@" 3>&1 >>"$log" 2>&1 </dev/null 9>&- &
    server=$!
fi
