#include "idmap.h"

#include <string.h>

#include "cleanup.h"
#include "error.h"
#include "procfs.h"
#include "subprocess.h"

static void write_file(int proc, pid_t pid, const char *name, const char *text)
{
    auto_free char *path = format_text("%d/%s", (int)pid, name);

    if (proc_write(proc, path, text) < 0)
        fail(.step = "write id maps", .syscall = "write", .number = errno, .path = format_text("/proc/%s", path));
}

/* Splits the map into words behind tool and pid; the words stay in `words`. */
static char **tool_arguments(const char *tool, char *pid, char *words)
{
    char **arguments = allocate((strlen(words) + 4) * sizeof(char *));
    size_t count = 0;

    arguments[count++] = (char *)tool;
    arguments[count++] = pid;
    for (char *save = NULL, *word = strtok_r(words, " \t\n", &save); word; word = strtok_r(NULL, " \t\n", &save))
        arguments[count++] = word;
    return arguments;
}

static void run_tool(const char *tool, pid_t pid, const char *map)
{
    auto_free char *pid_text = format_text("%d", (int)pid);
    auto_free char *words = format_text("%s", map);
    auto_free char **arguments = tool_arguments(tool, pid_text, words);
    char *environment[] = {NULL};
    struct outcome outcome;

    subprocess_run(
        &(const struct command){.path = tool, .arguments = arguments, .environment = environment, .timeout = -1},
        &outcome);
    if (outcome.exec_errno)
        fail(.step = "write id maps", .syscall = "execve", .number = outcome.exec_errno, .path = tool);
    if (outcome.status == 0)
        return;
    outcome.errors[strcspn(outcome.errors, "\n")] = '\0';
    fail(.step = "write id maps", .path = tool,
         .message = format_text("%s: %s: %s", tool, wait_status_text(outcome.status), outcome.errors),
         .hint = "are the ids in /etc/subuid and /etc/subgid?");
}

void idmap_write(const struct bootstrap *bootstrap, int proc, pid_t pid)
{
    /* user_namespaces(7): setgroups can be denied only while gid_map is not written */
    if (bootstrap->setgroups_deny)
        write_file(proc, pid, "setgroups", "deny");
    if (bootstrap->gid_map && bootstrap->newgidmap)
        run_tool(bootstrap->newgidmap, pid, bootstrap->gid_map);
    else if (bootstrap->gid_map)
        write_file(proc, pid, "gid_map", bootstrap->gid_map);
    if (bootstrap->uid_map && bootstrap->newuidmap)
        run_tool(bootstrap->newuidmap, pid, bootstrap->uid_map);
    else if (bootstrap->uid_map)
        write_file(proc, pid, "uid_map", bootstrap->uid_map);
}
