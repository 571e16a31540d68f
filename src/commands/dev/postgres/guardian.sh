# Starts a server and takes it away when its owner is gone: standard input is a pipe whose other end only the owner
# holds, so the end of input is the end of the owner, whatever ended it.
#
# Arguments: the directory to make and to remove, the signal that stops the server, the text of `start`, its arguments.
# `start` sets `server` to the server's process id and leaves it our standard output as descriptor 3: when that closes,
# the owner knows that the server has ended. Standard error is the lock on the data, which is kept to the end as
# descriptor 9 and not handed on to the server.
run=$1 signal=$2 start=$3
shift 3
server=

tidy() {
    if [ -n "$server" ]; then
        kill -s "$signal" "$server"
        wait "$server"
    fi
    cd /
    # Whoever else has files in there, another server that is just stopping, may still be writing.
    tries=0
    until rm -rf "$run" 2>/dev/null || [ "$((tries += 1))" -ge 50 ]; do sleep 0.1; done
}

# The owner's terminal and whoever ends everything politely mean the owner, not us.
trap '' HUP INT TERM
trap tidy EXIT
umask 077
exec 9>&2 2>&1

mkdir "$run" && eval "$start"
exec >/dev/null 2>&1
while read -r _; do :; done
