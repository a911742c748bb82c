#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../nsexec/cleanup.h"
#include "output.h"

static void make_raw(struct relay *relay)
{
    if (tcgetattr(STDIN_FILENO, &relay->before) < 0)
        return;
    struct termios raw = relay->before;
    raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    /* output processing stays on: it makes the ends of lines, which the container's pty leaves alone */
    raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    relay->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

void relay_open(struct relay *relay, int master)
{
    int flags = fcntl(master, F_GETFL);

    relay->master = master;
    relay->input_open = relay->output_open = true;
    relay->pending = 0;
    if (flags >= 0)
        (void)fcntl(master, F_SETFL, flags | O_NONBLOCK);
    /* the user's window wins over a size in the configuration */
    relay_resize(relay);
    make_raw(relay);
}

void relay_wanted(const struct relay *relay, struct pollfd wanted[RELAY_FDS])
{
    short events = (short)((relay->output_open ? POLLIN : 0) | (relay->pending > 0 ? POLLOUT : 0));

    wanted[0] = (struct pollfd){.fd = events ? relay->master : -1, .events = events};
    bool reads = relay->input_open && relay->pending < RELAY_CHUNK;
    wanted[1] = (struct pollfd){.fd = reads ? STDIN_FILENO : -1, .events = POLLIN};
}

static void write_master(struct relay *relay)
{
    while (relay->pending > 0) {
        ssize_t written = write(relay->master, relay->to_container, relay->pending);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EAGAIN)
            return;
        if (written < 0)
            written = (ssize_t)relay->pending;
        relay->pending -= (size_t)written;
        memmove(relay->to_container, relay->to_container + written, relay->pending);
    }
}

static void read_input(struct relay *relay)
{
    ssize_t got = read(STDIN_FILENO, relay->to_container + relay->pending, RELAY_CHUNK);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        relay->input_open = false;
        return;
    }
    relay->pending += (size_t)got;
    write_master(relay);
}

/* False when nothing more comes at this time. */
static bool read_master(struct relay *relay)
{
    static uint8_t chunk[RELAY_CHUNK];
    ssize_t got;

    do
        got = read(relay->master, chunk, sizeof(chunk));
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got <= 0) {
        /* EIO: no process has the slave open at the moment, or ever again; the process's end decides */
        relay->output_open = false;
        return false;
    }
    (void)output_write(STDOUT_FILENO, chunk, (size_t)got);
    return true;
}

void relay_handle(struct relay *relay, const struct pollfd ready[RELAY_FDS])
{
    if (ready[0].revents) {
        read_master(relay);
        write_master(relay);
    }
    if (ready[1].revents)
        read_input(relay);
}

void relay_resize(struct relay *relay)
{
    /* as runc does: any of the three may be redirected */
    static const int terminals[] = {STDERR_FILENO, STDOUT_FILENO, STDIN_FILENO};
    struct winsize size;

    for (size_t i = 0; i < sizeof(terminals) / sizeof(terminals[0]); i++)
        if (ioctl(terminals[i], TIOCGWINSZ, &size) == 0) {
            (void)ioctl(relay->master, TIOCSWINSZ, &size);
            return;
        }
}

void relay_drain(struct relay *relay)
{
    while (read_master(relay))
        ;
}

void relay_close(struct relay *relay)
{
    if (relay->raw)
        (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &relay->before);
    relay->raw = false;
    close_fd(&relay->master);
}
