# bash completion for hyperwal(1)
_hyperwal() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}
    local verbs='init serve follow restore log status verify snapshot label prune promote key name help'
    local words=''

    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$verbs --help --version" -- "$cur")
        return
    fi
    case $prev in
    --seq | --time | --label | --keep | --from | --to | --listen | --allow | --allow-write | --name | --also | --forget) return ;;
    --config | --identity | --authorized-keys)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    esac
    case $verb in
    help) words=$verbs ;;
    serve) words='--config --check-config --listen --allow --allow-write --authorized-keys --identity --http --http-public --json --help' ;;
    follow) words='--also --once --listen --allow --authorized-keys --name --json --help' ;;
    init) words="--adopt --json --help" ;;
    restore) words='--seq --time --label --force --json --help' ;;
    log) words='--from --to --json --help' ;;
    verify) words='--deep --json --help' ;;
    promote) words='--from --also --force --json --help' ;;
    key) words='--identity --forget --json --help' ;;
    name) words='--replace --no-lookup --json --help' ;;
    prune) words='--keep --dry-run --json --help' ;;
    *) words='--json --help' ;;
    esac
    if [[ $verb == name && $COMP_CWORD -eq 2 && $cur != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W 'add list remove' -- "$cur")
        return
    fi
    if [[ $cur == -* || $verb == help ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    fi
}
complete -o filenames -F _hyperwal hyperwal
