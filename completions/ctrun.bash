# Written by scripts/pages.py.
# bash completion for ctrun

_ctrun_containers() {
    "${COMP_WORDS[0]}" "${root[@]}" list --quiet 2>/dev/null
}

_ctrun() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb='' root=() i arguments=0
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --root | -root) root=(--root "${COMP_WORDS[i + 1]}") && ((i++)) ;;
        --log | -log | --log-format | -log-format | --trace | -trace | --criu | -criu | --rootless | -rootless) ((i++)) ;;
        -*) ;;
        *) verb=${COMP_WORDS[i]} && break ;;
        esac
    done
    [[ $before == = ]] && return
    case $verb:$before in
    :--log) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    :--log-format) COMPREPLY=($(compgen -W 'text json' -- "$word")) && return ;;
    :--root) COMPREPLY=($(compgen -d -- "$word")) && return ;;
    :--trace) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    :--criu) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    :--rootless) COMPREPLY=($(compgen -W 'auto true false' -- "$word")) && return ;;
    call:--socket) return ;;
    call:--format) return ;;
    checkpoint:--image-path) COMPREPLY=($(compgen -d -- "$word")) && return ;;
    checkpoint:--work-path) COMPREPLY=($(compgen -d -- "$word")) && return ;;
    checkpoint:--parent-path) COMPREPLY=($(compgen -d -- "$word")) && return ;;
    checkpoint:--status-fd) return ;;
    checkpoint:--page-server) return ;;
    checkpoint:--manage-cgroups-mode) COMPREPLY=($(compgen -W 'soft full strict ignore' -- "$word")) && return ;;
    checkpoint:--empty-ns) COMPREPLY=($(compgen -W 'network' -- "$word")) && return ;;
    checkpoint:--network-lock) COMPREPLY=($(compgen -W 'iptables nftables skip' -- "$word")) && return ;;
    checkpoint:--ghost-limit) return ;;
    checkpoint:--format) COMPREPLY=($(compgen -W 'text json' -- "$word")) && return ;;
    create:--bundle | create:-b) COMPREPLY=($(compgen -d -- "$word")) && return ;;
    create:--console-socket) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    create:--pidfd-socket) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    create:--pid-file) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    create:--preserve-fds) return ;;
    events:--interval) return ;;
    exec:--console-socket) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    exec:--pidfd-socket) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    exec:--cwd) COMPREPLY=($(compgen -d -- "$word")) && return ;;
    exec:--env | exec:-e) return ;;
    exec:--user | exec:-u) return ;;
    exec:--additional-gids | exec:-g) return ;;
    exec:--process | exec:-p) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    exec:--pid-file) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    exec:--process-label) return ;;
    exec:--apparmor) return ;;
    exec:--cap | exec:-c) return ;;
    exec:--preserve-fds) return ;;
    exec:--cgroup) return ;;
    explain:--format | explain:-f) COMPREPLY=($(compgen -W 'text json' -- "$word")) && return ;;
    list:--format | list:-f) COMPREPLY=($(compgen -W 'table json' -- "$word")) && return ;;
    ps:--format | ps:-f) COMPREPLY=($(compgen -W 'table json' -- "$word")) && return ;;
    restore:--console-socket) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    restore:--image-path) COMPREPLY=($(compgen -d -- "$word")) && return ;;
    restore:--work-path) COMPREPLY=($(compgen -d -- "$word")) && return ;;
    restore:--manage-cgroups-mode) COMPREPLY=($(compgen -W 'soft full strict ignore' -- "$word")) && return ;;
    restore:--bundle | restore:-b) COMPREPLY=($(compgen -d -- "$word")) && return ;;
    restore:--pid-file) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    restore:--empty-ns) COMPREPLY=($(compgen -W 'network' -- "$word")) && return ;;
    restore:--network-lock) COMPREPLY=($(compgen -W 'iptables nftables skip' -- "$word")) && return ;;
    restore:--lsm-profile) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    restore:--lsm-mount-context) return ;;
    restore:--format) COMPREPLY=($(compgen -W 'text json' -- "$word")) && return ;;
    run:--bundle | run:-b) COMPREPLY=($(compgen -d -- "$word")) && return ;;
    run:--console-socket) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    run:--pidfd-socket) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    run:--pid-file) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    run:--preserve-fds) return ;;
    spec:--bundle | spec:-b) COMPREPLY=($(compgen -d -- "$word")) && return ;;
    update:--resources | update:-r) COMPREPLY=($(compgen -f -- "$word")) && return ;;
    update:--blkio-weight) return ;;
    update:--cpu-period) return ;;
    update:--cpu-quota) return ;;
    update:--cpu-burst) return ;;
    update:--cpu-share) return ;;
    update:--cpu-rt-period) return ;;
    update:--cpu-rt-runtime) return ;;
    update:--cpuset-cpus) return ;;
    update:--cpuset-mems) return ;;
    update:--cpu-idle) return ;;
    update:--memory) return ;;
    update:--memory-reservation) return ;;
    update:--memory-swap) return ;;
    update:--pids-limit) return ;;
    update:--l3-cache-schema) return ;;
    update:--mem-bw-schema) return ;;
    esac
    if [[ -z $verb ]]; then
        case $word in
        -*) COMPREPLY=($(compgen -W '--debug --log --log-format --root --trace --criu --systemd-cgroup --rootless --supervisor --version -v --help -h' -- "$word")) ;;
        *) COMPREPLY=($(compgen -W 'call checkpoint create delete events exec explain kill list pause ps restore resume run spec start state update features help' -- "$word")) ;;
        esac
        return
    fi
    for ((i++; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == -* ]] || ((arguments++))
    done
    case $verb:$word in
    call:-*) COMPREPLY=($(compgen -W '--socket --format --stdio --help -h' -- "$word")) && return ;;
    checkpoint:-*) COMPREPLY=($(compgen -W '--image-path --work-path --parent-path --leave-running --tcp-established --tcp-skip-in-flight --tcp-close --link-remap --ext-unix-sk --shell-job --lazy-pages --file-locks --auto-dedup --status-fd --page-server --pre-dump --manage-cgroups-mode --empty-ns --network-lock --ghost-limit --check --format --help -h' -- "$word")) && return ;;
    create:-*) COMPREPLY=($(compgen -W '--bundle -b --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds --help -h' -- "$word")) && return ;;
    delete:-*) COMPREPLY=($(compgen -W '--force -f --help -h' -- "$word")) && return ;;
    events:-*) COMPREPLY=($(compgen -W '--interval --stats --help -h' -- "$word")) && return ;;
    exec:-*) COMPREPLY=($(compgen -W '--console-socket --pidfd-socket --cwd --env -e --tty -t --user -u --additional-gids -g --process -p --detach -d --pid-file --process-label --apparmor --no-new-privs --cap -c --preserve-fds --cgroup --ignore-paused --help -h' -- "$word")) && return ;;
    explain:-*) COMPREPLY=($(compgen -W '--format -f --no-pivot --no-new-keyring --help -h' -- "$word")) && return ;;
    kill:-*) COMPREPLY=($(compgen -W '--all -a --help -h' -- "$word")) && return ;;
    list:-*) COMPREPLY=($(compgen -W '--format -f --quiet -q --help -h' -- "$word")) && return ;;
    pause:-*) COMPREPLY=($(compgen -W '--help -h' -- "$word")) && return ;;
    ps:-*) COMPREPLY=($(compgen -W '--format -f --help -h' -- "$word")) && return ;;
    restore:-*) COMPREPLY=($(compgen -W '--console-socket --image-path --work-path --tcp-established --tcp-close --ext-unix-sk --shell-job --file-locks --auto-dedup --lazy-pages --manage-cgroups-mode --bundle -b --detach -d --pid-file --no-subreaper --no-pivot --empty-ns --network-lock --lsm-profile --lsm-mount-context --format --help -h' -- "$word")) && return ;;
    resume:-*) COMPREPLY=($(compgen -W '--help -h' -- "$word")) && return ;;
    run:-*) COMPREPLY=($(compgen -W '--bundle -b --console-socket --pidfd-socket --detach -d --keep --pid-file --no-subreaper --no-pivot --no-new-keyring --preserve-fds --help -h' -- "$word")) && return ;;
    spec:-*) COMPREPLY=($(compgen -W '--bundle -b --rootless --help -h' -- "$word")) && return ;;
    start:-*) COMPREPLY=($(compgen -W '--help -h' -- "$word")) && return ;;
    state:-*) COMPREPLY=($(compgen -W '--help -h' -- "$word")) && return ;;
    update:-*) COMPREPLY=($(compgen -W '--resources -r --blkio-weight --cpu-period --cpu-quota --cpu-burst --cpu-share --cpu-rt-period --cpu-rt-runtime --cpuset-cpus --cpuset-mems --cpu-idle --memory --memory-reservation --memory-swap --pids-limit --l3-cache-schema --mem-bw-schema --help -h' -- "$word")) && return ;;
    features:-*) COMPREPLY=($(compgen -W '--help -h' -- "$word")) && return ;;
    esac
    case $verb:$arguments in
    help:0 | h:0) COMPREPLY=($(compgen -W 'call checkpoint create delete events exec explain kill list pause ps restore resume run spec start state update features' -- "$word")) ;;
    kill:1) COMPREPLY=($(compgen -W 'HUP INT QUIT ABRT KILL USR1 USR2 TERM CONT STOP TSTP WINCH' -- "$word")) ;;
    checkpoint:0) COMPREPLY=($(compgen -W "$(_ctrun_containers)" -- "$word")) ;;
    delete:0) COMPREPLY=($(compgen -W "$(_ctrun_containers)" -- "$word")) ;;
    events:0) COMPREPLY=($(compgen -W "$(_ctrun_containers)" -- "$word")) ;;
    exec:0) COMPREPLY=($(compgen -W "$(_ctrun_containers)" -- "$word")) ;;
    explain:0) COMPREPLY=($(compgen -d -- "$word")) ;;
    kill:0) COMPREPLY=($(compgen -W "$(_ctrun_containers)" -- "$word")) ;;
    pause:0) COMPREPLY=($(compgen -W "$(_ctrun_containers)" -- "$word")) ;;
    ps:0) COMPREPLY=($(compgen -W "$(_ctrun_containers)" -- "$word")) ;;
    resume:0) COMPREPLY=($(compgen -W "$(_ctrun_containers)" -- "$word")) ;;
    start:0) COMPREPLY=($(compgen -W "$(_ctrun_containers)" -- "$word")) ;;
    state:0) COMPREPLY=($(compgen -W "$(_ctrun_containers)" -- "$word")) ;;
    update:0) COMPREPLY=($(compgen -W "$(_ctrun_containers)" -- "$word")) ;;
    esac
}

complete -o filenames -F _ctrun ctrun
