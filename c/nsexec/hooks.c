#include "hooks.h"

#include "error.h"
#include "subprocess.h"

static void run_hook(const struct hook *hook, size_t index, const struct blob *state)
{
    static char *no_strings[] = {(char *)0};
    char *only_path[] = {hook->path, (char *)0};
    struct outcome outcome;

    subprocess_run(
        &(const struct command){.path = hook->path,
                                .arguments = hook->arguments.count ? hook->arguments.items : only_path,
                                .environment = hook->environment.items ? hook->environment.items : no_strings,
                                .input = state->data,
                                .input_size = state->size,
                                .timeout = hook->timeout},
        &outcome);
    if (outcome.exec_errno)
        fail(.kind = "HookError", .syscall = "execve", .number = outcome.exec_errno, .path = hook->path,
             .message = format_text("error running startContainer hook #%zu: fork/exec %s", index, hook->path));
    if (outcome.timed_out)
        fail(.kind = "HookError", .path = hook->path,
             .message =
                 format_text("error running startContainer hook #%zu: hook %s ran past specified timeout of %lld.0s",
                             index, hook->path, (long long)hook->timeout));
    if (outcome.status != 0)
        fail(.kind = "HookError", .path = hook->path,
             .message = format_text("error running startContainer hook #%zu: %s, stdout: %s, stderr: %s", index,
                                    wait_status_text(outcome.status), outcome.output, outcome.errors));
}

void hooks_run(const struct settings *settings)
{
    for (size_t i = 0; i < settings->hook_count; i++) {
        log_line("startContainer hook %s", settings->hooks[i].path);
        run_hook(&settings->hooks[i], i, &settings->hook_state);
    }
}
