/* The microcontroller's side of the serial link, in portable C99: no allocation, no clock and no
 * port of its own. Give every byte that arrives to fer_link_receive, call fer_link_poll often, and
 * read who is in view from the struct. docs/serial.md describes the protocol. */
#ifndef FER_LINK_H
#define FER_LINK_H

#include <stddef.h>
#include <stdint.h>

#include "fer_protocol.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    uint8_t type;
    uint16_t sequence;
    uint8_t length; /* of payload, at most FER_MAX_PAYLOAD */
    uint8_t payload[FER_MAX_PAYLOAD];
} fer_frame;

/* Writes the bytes of a frame with the zero that ends it to `out`, which holds FER_MAX_ENCODED + 1
 * bytes; returns how many. 0: the payload is too long. */
size_t fer_encode(const fer_frame *frame, uint8_t *out);

/* Frames out of a stream of bytes. */
typedef struct {
    uint8_t buffer[FER_MAX_ENCODED];
    uint8_t filled;
    uint8_t overlong;
    uint8_t counting;   /* whether `expected` says anything */
    uint16_t expected;  /* sequence number of the next frame */
    uint32_t damaged;   /* what was no whole frame */
    uint32_t lost;      /* sequence numbers that are missing */
} fer_receiver;

void fer_receiver_init(fer_receiver *receiver);

/* Takes a byte; 1 if it ended a whole frame, which is then in `frame`, else 0. */
int fer_receive(fer_receiver *receiver, uint8_t byte, fer_frame *frame);

typedef struct {
    uint32_t track;     /* stays the same while the person is in view */
    uint8_t label;      /* FER_LABEL_HAPPY, ... */
    uint8_t confidence; /* percent */
    uint16_t held_ds;   /* tenths of a second since the label came */
} fer_face;

/* Sends bytes to the box; `context` is what was given to fer_link_init. */
typedef void (*fer_write)(void *context, const uint8_t *bytes, size_t count);

typedef struct {
    /* To read. `faces`, `total` and `ready` are empty while not connected. */
    uint8_t connected;  /* the box said hello, speaks this version, and was heard lately */
    uint8_t ready;      /* the box does its work: there is a camera, and results come */
    uint8_t total;      /* people in view */
    uint8_t face_count; /* how many of them are in `faces`, the largest first */
    fer_face faces[FER_MAX_FACES];
    uint8_t brightness; /* percent: set your own after fer_link_init; the box may change it */

    fer_receiver receiver;
    fer_write write;
    void *context;
    const char *name;
    uint16_t sequence;
    uint32_t heard_ms, hello_ms, status_ms; /* last heard; when hello and status are due */
    uint32_t uptime_ms_before, uptime_s;    /* seconds are counted, as milliseconds wrap around */
} fer_link;

/* `name` stays where it is while the link is used, FER_MAX_NAME bytes of it are told. `now_ms` is
 * any clock in milliseconds that wraps around at 2^32, such as Arduino's millis(). */
void fer_link_init(fer_link *link, const char *name, fer_write write, void *context, uint32_t now_ms);

/* A byte came from the box. */
void fer_link_receive(fer_link *link, uint8_t byte, uint32_t now_ms);

/* Says what is due, and notices that the box fell silent. At least ten times a second. */
void fer_link_poll(fer_link *link, uint32_t now_ms);

/* Asks the box to say now who is in view. It does so by itself when that changes. */
void fer_link_query(fer_link *link);

#ifdef __cplusplus
}
#endif

#endif
