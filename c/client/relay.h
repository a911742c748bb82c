/* Copies between the user's stdio and a container's pty, as Relay of ctr_supervisor/process/foreground.py does. */

#ifndef CTR_RELAY_H
#define CTR_RELAY_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

#define RELAY_CHUNK 65536

struct relay {
    int master; /* of the pty; owned */
    bool input_open;
    bool output_open;
    size_t pending; /* bytes in to_container */
    uint8_t to_container[2 * RELAY_CHUNK];
    bool raw; /* the user's terminal is, and `before` is what it was */
    struct termios before;
};

#define RELAY_FDS 2

/* Gives the container the size of the user's window, and the user's terminal to the container. */
void relay_open(struct relay *relay, int master);

/* What can be dealt with now: the user's input is left where it is while the container reads none. */
void relay_wanted(const struct relay *relay, struct pollfd wanted[RELAY_FDS]);

/* Moves what is there. */
void relay_handle(struct relay *relay, const struct pollfd ready[RELAY_FDS]);

/* The user's window has another size. */
void relay_resize(struct relay *relay);

/* Prints what the process wrote before it ended. */
void relay_drain(struct relay *relay);

/* Gives the user's terminal back; does nothing the second time. */
void relay_close(struct relay *relay);

#endif
