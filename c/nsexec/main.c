/* ctr-init: makes one container process. See `ctr-init --help`. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "context.h"
#include "fds.h"
#include "verbs.h"

#define SOCKET_VARIABLE "CTR_INIT_SOCKET"

#ifndef CTR_VERSION
#define CTR_VERSION "0.1.0"
#endif

static const char help[] = "usage: ctr-init decode FILE|-\n"
                           "       ctr-init run FILE|-\n"
                           "       ctr-init --help | --version\n"
                           "\n"
                           "Makes one container process: joins and creates namespaces, then sets the process\n"
                           "up and executes its program. The engine starts it with a socket, whose fd it\n"
                           "names in CTR_INIT_SOCKET, and speaks the protocol of c/nsexec/protocol.def on\n"
                           "it.\n"
                           "\n"
                           "By hand:\n"
                           "  decode FILE   print every message and attribute in FILE, which holds messages\n"
                           "                of the protocol back to back\n"
                           "  run FILE      FILE holds a BOOTSTRAP and a SETTINGS message: do what they say\n"
                           "                with no engine, that is with no rootfs made and no cgroup\n"
                           "                joined; wait for the process and exit with its status, or 128\n"
                           "                plus its signal. Attributes that hold fds can't stand in a\n"
                           "                file and are refused\n"
                           "  -             instead of FILE reads standard input\n"
                           "\n"
                           "exit status: that of the process for `run`; 1 after an error, 2 after wrong\n"
                           "usage.\n";

static int usage_error(const char *text, const char *word)
{
    fprintf(stderr, "ctr-init: %s%s%s\ntry: ctr-init --help\n", text, *word ? " " : "", word);
    return 2;
}

/* Programs assume that 0 to 2 are stdio; a fd opened by chance under such a number would leak into the container. */
static void fill_stdio(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

static int serve_engine(const char *text)
{
    char *end;
    int type = 0;
    socklen_t size = sizeof(type);

    errno = 0;
    long number = strtol(text, &end, 10);
    if (errno || *end || end == text || number < 3 || number > 1 << 20)
        return usage_error(SOCKET_VARIABLE " is not the number of a fd:", text);
    if (getsockopt((int)number, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_SEQPACKET)
        return usage_error(SOCKET_VARIABLE " is not a SEQPACKET socket:", text);
    int inherited_end = fds_inherited_end((int)number);
    fill_stdio();
    prelude_run((int)number, inherited_end);
}

int main(int argc, char **argv)
{
    const char *socket = getenv(SOCKET_VARIABLE), *verb = argc > 1 ? argv[1] : "";

    if (argc <= 1 && getenv(REEXEC_VARIABLE))
        reexec_resume(getenv(REEXEC_VARIABLE));
    if (argc <= 1 && socket)
        return serve_engine(socket);
    fill_stdio();
    if (argc <= 1) {
        fputs(help, stderr);
        return 2;
    }
    if (strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0 || strcmp(verb, "help") == 0) {
        fputs(help, stdout);
        return 0;
    }
    if (strcmp(verb, "--version") == 0 || strcmp(verb, "-v") == 0) {
        printf("ctr-init %s, protocol %d\n", CTR_VERSION, CTR_PROTOCOL_VERSION);
        return 0;
    }
    bool decodes = strcmp(verb, "decode") == 0;
    if (!decodes && strcmp(verb, "run") != 0)
        return usage_error("unknown verb", verb);
    if (argc != 3)
        return usage_error(argc < 3 ? "missing FILE after" : "more than one FILE after", verb);
    return decodes ? verb_decode(argv[2]) : verb_run(argv[2]);
}
