"""Shell completion of ctrun for bash, zsh and fish, written from the command line's own tables."""

from __future__ import annotations

from collections.abc import Iterable

from ctr_supervisor.cli.parser import BOOL, HELP, INTS, OPTIONAL, STRINGS, Flag
from ctr_supervisor.cli.verb import Verb
from scripts import command_line

NOTE = "# Written by scripts/pages.py."


def words(flags: Iterable[Flag]) -> list[str]:
    """The flags as they are typed."""
    return [word for flag in flags for word in (f"--{flag.name}", *([f"-{flag.short}"] if flag.short else []))]


# -- bash

BASH = """\
{note}
# bash completion for ctrun

_ctrun_containers() {{
    "${{COMP_WORDS[0]}}" "${{root[@]}}" list --quiet 2>/dev/null
}}

_ctrun() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} verb='' root=() i arguments=0
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
        --root | -root) root=(--root "${{COMP_WORDS[i + 1]}}") && ((i++)) ;;
        {valued}) ((i++)) ;;
        -*) ;;
        *) verb=${{COMP_WORDS[i]}} && break ;;
        esac
    done
    [[ $before == = ]] && return
    case $verb:$before in
{values}
    esac
    if [[ -z $verb ]]; then
        case $word in
        -*) COMPREPLY=($(compgen -W '{globals}' -- "$word")) ;;
        *) COMPREPLY=($(compgen -W '{verbs} help' -- "$word")) ;;
        esac
        return
    fi
    for ((i++; i < COMP_CWORD; i++)); do
        [[ ${{COMP_WORDS[i]}} == -* ]] || ((arguments++))
    done
    case $verb:$word in
{flags}
    esac
    case $verb:$arguments in
    help:0 | h:0) COMPREPLY=($(compgen -W '{verbs}' -- "$word")) ;;
    kill:1) COMPREPLY=($(compgen -W '{signals}' -- "$word")) ;;
{arguments}
    esac
}}

complete -o filenames -F _ctrun ctrun
"""

BASH_VALUES = {
    "directory": 'compgen -d -- "$word"',
    "file": 'compgen -f -- "$word"',
    "container": 'compgen -W "$(_ctrun_containers)" -- "$word"',
}


def bash() -> str:
    """The completion for bash."""
    everything = [("", command_line.global_flags())]
    everything += [(verb.name, command_line.shown(verb.flags)) for verb in command_line.verbs()]
    values = []
    for name, flags in everything:
        for flag in flags:
            if not command_line.takes_argument(flag):
                continue
            chosen = command_line.choices(name, flag)
            kind = command_line.value_kind(flag)
            action = f"compgen -W '{' '.join(chosen)}' -- \"$word\"" if chosen else BASH_VALUES.get(kind, "")
            pattern = " | ".join(f"{name}:{word}" for word in words([flag]))
            values.append(f"    {pattern}) {f'COMPREPLY=($({action})) && ' if action else ''}return ;;")
    flags_of = [
        f"    {name}:-*) COMPREPLY=($(compgen -W '{' '.join(words([*flags, HELP]))}' -- \"$word\")) && return ;;"
        for name, flags in everything[1:]
    ]
    arguments = [
        f"    {verb.name}:0) COMPREPLY=($({BASH_VALUES[command_line.argument_kind(verb)]})) ;;"
        for verb in command_line.verbs()
        if command_line.argument_kind(verb)
    ]
    valued = [flag for flag in command_line.global_flags() if command_line.takes_argument(flag) and flag.name != "root"]
    return BASH.format(
        note=NOTE,
        valued=" | ".join(f"--{flag.name} | -{flag.name}" for flag in valued),
        values="\n".join(values),
        globals=" ".join(words([*command_line.global_flags(), HELP])),
        verbs=" ".join(verb.name for verb in command_line.verbs()),
        flags="\n".join(flags_of),
        signals=" ".join(command_line.SIGNALS),
        arguments="\n".join(arguments),
    )


# -- zsh

ZSH = """\
#compdef ctrun
{note}

_ctrun_containers() {{
    local -a root
    [[ -n ${{opt_args[--root]}} ]] && root=(--root "${{opt_args[--root]}}")
    compadd -- $(_call_program containers ctrun $root list --quiet 2>/dev/null)
}}

_ctrun_commands() {{
    local -a commands=(
{commands}
    )
    _describe command commands
}}

_ctrun() {{
    local curcontext=$curcontext state line
    typeset -A opt_args
    _arguments -C \\
{globals}
        '1:command:_ctrun_commands' \\
        '*::argument:->arguments' && return
    [[ $state == arguments ]] || return
    case $line[1] in
{verbs}
    help | h) _arguments '1:command:_ctrun_commands' ;;
    esac
}}

_ctrun "$@"
"""

ZSH_VALUES = {"directory": "_files -/", "file": "_files", "container": "_ctrun_containers", "": " "}


def zsh_text(text: str) -> str:
    """A help text inside of a specification in single quotes."""
    for char in "\\[]:":
        text = text.replace(char, "\\" + char)
    return text.replace("'", "'\\''")


def zsh_flag(verb: str, flag: Flag) -> str:
    """One specification of _arguments."""
    repeated = "*" if flag.kind in (STRINGS, INTS) else ""
    chosen = command_line.choices(verb, flag)
    action = f"({' '.join(chosen)})" if chosen else ZSH_VALUES[command_line.value_kind(flag)]
    value = "" if flag.kind == BOOL else f"{':' if flag.kind == OPTIONAL else ''}:value:{action}"
    sign = "=-" if flag.kind == OPTIONAL else ""
    help_text = zsh_text(flag.help_text)
    if not flag.short:
        return f"'{repeated}--{flag.name}{sign}[{help_text}]{value}'"
    both = f"{{--{flag.name},-{flag.short}}}"
    before = f"'{repeated}'" if repeated else f"'(--{flag.name} -{flag.short})'"
    return f"{before}{both}'[{help_text}]{value}'"


def zsh_arguments(verb: Verb) -> list[str]:
    """Specifications of a verb's arguments."""
    kind = command_line.argument_kind(verb)
    first = [f"'1:argument:{ZSH_VALUES[kind]}'"] if verb.minimum else []
    if verb.name == "kill":
        first.append(f"'2:signal:({' '.join(command_line.SIGNALS)})'")
    elif verb.maximum is None:
        first.append("'*::command:_normal'" if verb.name == "exec" else "'*:argument: '")
    return first


def zsh() -> str:
    """The completion for zsh."""
    cases = []
    for verb in command_line.verbs():
        specifications = [zsh_flag(verb.name, flag) for flag in [*command_line.shown(verb.flags), HELP]]
        lines = " \\\n            ".join([*specifications, *zsh_arguments(verb)])
        cases.append(f"    {verb.name})\n        _arguments \\\n            {lines}\n        ;;")
    return ZSH.format(
        note=NOTE,
        commands="\n".join(f"        '{verb.name}:{zsh_text(verb.summary)}'" for verb in command_line.verbs()),
        globals=" \\\n".join(" " * 8 + zsh_flag("", flag) for flag in [*command_line.global_flags(), HELP]) + " \\",
        verbs="\n".join(cases),
    )


# -- fish

FISH = """\
{note}
# fish completion for ctrun

function __ctrun_verb
    # the first word that is neither a flag nor the value of one
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        switch $words[1]
            case {valued}
                set -e words[1]
            case '-*'
            case '*'
                echo $words[1]
                return 0
        end
        set -e words[1]
    end
    return 1
end

function __ctrun_is
    contains -- (__ctrun_verb) $argv
end

function __ctrun_containers
    set -l words (commandline -opc)
    set -l root
    if set -l index (contains -i -- --root $words)
        set root --root $words[(math $index + 1)]
    end
    ctrun $root list --quiet 2>/dev/null
end

complete -c ctrun -f
{lines}
"""


def fish_quote(text: str) -> str:
    """A text in single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def fish_flag(verb: str, flag: Flag) -> str:
    """One completion of a flag."""
    condition = f"__ctrun_is {verb}" if verb else "not __ctrun_verb"
    parts = [f"complete -c ctrun -n {fish_quote(condition)} -l {flag.name}"]
    if flag.short:
        parts.append(f"-s {flag.short}")
    chosen = command_line.choices(verb, flag)
    if chosen:
        parts.append(f"-x -a {fish_quote(' '.join(chosen))}")
    elif command_line.value_kind(flag) == "directory":
        parts.append("-x -a '(__fish_complete_directories)'")
    elif command_line.takes_argument(flag):
        parts.append("-r -F" if command_line.value_kind(flag) == "file" else "-x")
    return " ".join([*parts, "-d", fish_quote(flag.help_text)])


def fish() -> str:
    """The completion for fish."""
    kinds = {"container": "-a '(__ctrun_containers)'", "directory": "-x -a '(__fish_complete_directories)'"}
    lines = [fish_flag("", flag) for flag in [*command_line.global_flags(), HELP]]
    for verb in command_line.verbs():
        lines.append(
            f"complete -c ctrun -n 'not __ctrun_verb' -a {verb.name} -d {fish_quote(verb.summary)}",
        )
    for verb in command_line.verbs():
        lines += [fish_flag(verb.name, flag) for flag in [*command_line.shown(verb.flags), HELP]]
        kind = command_line.argument_kind(verb)
        if kind:
            lines.append(f"complete -c ctrun -n '__ctrun_is {verb.name}' {kinds[kind]}")
    lines.append(f"complete -c ctrun -n '__ctrun_is kill' -a '{' '.join(command_line.SIGNALS)}'")
    names = " ".join(verb.name for verb in command_line.verbs())
    lines.append(f"complete -c ctrun -n '__ctrun_is help h' -a '{names}'")
    valued = [flag for flag in command_line.global_flags() if command_line.takes_argument(flag)]
    return FISH.format(note=NOTE, valued=" ".join(f"--{flag.name}" for flag in valued), lines="\n".join(lines))
